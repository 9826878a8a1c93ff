//! Requests and answers over one netlink socket.

use std::{io, os::fd::AsFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use netlink_sys::{Socket, SocketAddr};

use super::{
    decode::{Message, messages},
    error::Cause,
};
use crate::sys::sockopt;

/// The kernel sends at most 32 KiB of a list at once, and single messages are shorter.
const DATAGRAM: usize = 64 * 1024;

/// Room for a list's part while the rest is produced.
const RECEIVE_BUFFER: i32 = 1 << 20;

/// How often a list that changed underfoot is read again.
const DUMP_ATTEMPTS: usize = 8;

/// A socket with one request outstanding at most.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// What happened at a socket when it was read.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::sys) enum Received {
    /// A whole datagram of the kernel's is in the buffer.
    Datagram,
    /// The kernel had to drop messages, or one was too long for the buffer.
    Lost,
    /// There is nothing to read.
    Nothing,
}

/// Reads one datagram into `buffer`, without waiting.
pub(in crate::sys) fn receive(socket: &Socket, buffer: &mut Vec<u8>) -> io::Result<Received> {
    buffer.clear();
    buffer.reserve(DATAGRAM);
    loop {
        // MSG_TRUNC makes the kernel answer the whole length even where it had to cut.
        match socket.recv_from(buffer, libc::MSG_DONTWAIT | libc::MSG_TRUNC) {
            // Only what the kernel (port 0) says counts.
            Ok((_, from)) if from.port_number() != 0 => buffer.clear(),
            Ok((length, _)) if length > buffer.len() => return Ok(Received::Lost),
            Ok(_) => return Ok(Received::Datagram),
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN) => return Ok(Received::Nothing),
                Some(libc::ENOBUFS) => return Ok(Received::Lost),
                Some(libc::EINTR) => {}
                _ => return Err(error),
            },
        }
    }
}

impl Channel {
    /// A socket of a protocol, `NETLINK_…`.
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        let socket = Socket::new(protocol)?;
        // So that the kernel filters lists itself and says in words what it does not like. An old
        // kernel does neither; nothing depends on it.
        let _ = socket.set_netlink_get_strict_chk(true);
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        sockopt::grow_receive_buffer(socket.as_fd(), RECEIVE_BUFFER)?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: Vec::new(),
        })
    }

    /// Asks for a change.
    pub(super) fn change(
        &mut self,
        request: impl NetlinkSerializable,
        flags: u16,
    ) -> Result<(), Cause> {
        self.exchange(request, NLM_F_REQUEST | NLM_F_ACK | flags, |_| ())
            .map(|_whole| ())
    }

    /// Asks for one object; `None` when the answer held none that `decode` takes.
    pub(super) fn get<T>(
        &mut self,
        request: impl NetlinkSerializable,
        kind: u16,
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, Cause> {
        let mut found = None;
        self.exchange(request, NLM_F_REQUEST | NLM_F_ACK, |message| {
            if message.kind == kind {
                found = decode(message.payload);
            }
        })?;
        Ok(found)
    }

    /// Asks for all objects of a kind, again if they changed meanwhile: an interrupted list may
    /// miss objects that did not change at all.
    pub(super) fn dump<T>(
        &mut self,
        request: impl NetlinkSerializable + Clone,
        kind: u16,
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Cause> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut found = Vec::new();
            let whole = self.exchange(request.clone(), NLM_F_REQUEST | NLM_F_DUMP, |message| {
                if message.kind == kind {
                    found.extend(decode(message.payload));
                }
            })?;
            if whole {
                return Ok(found);
            }
        }
        Err(Cause::Interrupted)
    }

    /// Sends a request and hands every message of the answer to `each`, up to the
    /// acknowledgement. Answers false when a list was interrupted.
    fn exchange(
        &mut self,
        request: impl NetlinkSerializable,
        flags: u16,
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<bool, Cause> {
        self.sequence = self.sequence.wrapping_add(1);
        self.send(request, flags)?;
        let mut whole = true;
        loop {
            match receive(&self.socket, &mut self.buffer).map_err(Cause::Io)? {
                Received::Datagram => {}
                // The kernel answers within the call that asks: waiting would not help.
                Received::Nothing | Received::Lost => return Err(Cause::NoAnswer),
            }
            for message in messages(&self.buffer) {
                let message = message.ok_or(Cause::NoAnswer)?;
                // What is left of an earlier request that failed half way.
                if message.sequence != self.sequence {
                    continue;
                }
                whole &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        return acknowledgement(&message).map(|()| whole);
                    }
                    _ => each(&message),
                }
            }
        }
    }

    fn send(&self, request: impl NetlinkSerializable, flags: u16) -> Result<(), Cause> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket
            .send_to(&bytes, &SocketAddr::new(0, 0), 0)
            .map(|_length| ())
            .map_err(Cause::Io)
    }
}

/// Reads an error number and, where there is one, the kernel's explanation. `man 7 netlink`.
fn acknowledgement(message: &Message<'_>) -> Result<(), Cause> {
    // An empty DONE is a success; the number is negative on failure.
    let Some((code, rest)) = message.payload.split_first_chunk::<4>() else {
        return Ok(());
    };
    let errno = -i32::from_ne_bytes(*code);
    if errno == 0 {
        return Ok(());
    }
    let attributes = match message.kind {
        // After the header of the request that failed.
        NLMSG_ERROR => rest.get(NETLINK_HEADER..).unwrap_or_default(),
        _ => rest,
    };
    let note = (message.flags & NLM_F_ACK_TLVS != 0)
        .then(|| explanation(attributes))
        .flatten();
    Err(Cause::Refused { errno, note })
}

/// The text among the attributes of an extended acknowledgement.
fn explanation(attributes: &[u8]) -> Option<String> {
    let text = NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)?;
    let text = String::from_utf8_lossy(text.value()).into_owned();
    Some(text.trim_end_matches('\0').to_owned())
}

/// Length of `struct nlmsghdr`.
const NETLINK_HEADER: usize = 16;
/// The attribute that holds the text (`linux/netlink.h`).
const NLMSGERR_ATTR_MSG: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: u16, flags: u16, payload: &[u8]) -> (i32, Option<String>) {
        let message = Message {
            kind,
            flags,
            sequence: 1,
            payload,
        };
        match acknowledgement(&message) {
            Err(Cause::Refused { errno, note }) => (errno, note),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_acknowledgement_is_no_error_and_an_error_has_its_text() {
        let ack = Message {
            kind: NLMSG_ERROR,
            flags: 0,
            sequence: 1,
            payload: &[0; 20],
        };
        assert!(acknowledgement(&ack).is_ok());

        let mut payload = (-libc::EINVAL).to_ne_bytes().to_vec();
        payload.extend([0; 16]);
        assert_eq!(refused(NLMSG_ERROR, 0, &payload), (libc::EINVAL, None));
        payload.extend(8_u16.to_ne_bytes());
        payload.extend(NLMSGERR_ATTR_MSG.to_ne_bytes());
        payload.extend(*b"no!\0");
        let text = Some("no!".to_owned());
        assert_eq!(
            refused(NLMSG_ERROR, NLM_F_ACK_TLVS, &payload),
            (libc::EINVAL, text)
        );
    }

    #[test]
    fn a_list_may_end_in_an_error() {
        let payload = (-libc::ENODEV).to_ne_bytes();
        assert_eq!(refused(NLMSG_DONE, 0, &payload), (libc::ENODEV, None));
    }
}
