/* A kernel with an ip_vs that takes every order and keeps none, for one program: it is preloaded. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/ip_vs.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

static int is_ours(int level, int option)
{
    return level == IPPROTO_IP && option >= IP_VS_BASE_CTL && option <= IP_VS_SO_SET_MAX;
}

int setsockopt(int fd, int level, int option, const void *value, socklen_t length)
{
    int (*next)(int, int, int, const void *, socklen_t) = dlsym(RTLD_NEXT, "setsockopt");

    return is_ours(level, option) ? 0 : next(fd, level, option, value, length);
}

int getsockopt(int fd, int level, int option, void *value, socklen_t *length)
{
    int (*next)(int, int, int, void *, socklen_t *) = dlsym(RTLD_NEXT, "getsockopt");

    if (!is_ours(level, option))
        return next(fd, level, option, value, length);
    memset(value, 0, *length);
    return 0;
}
