//! Questions to the running daemon: `xvs list`, `xvs vrrp`, `xvs reload`.

use std::{path::Path, process::ExitCode};

use super::{
    FAILED,
    arguments::{List, Query},
    client, conns, fail, list, print, print_json, tell, timing, vrrp,
};
use crate::control::api::{Request, Response};

fn show_connections(list: &List, socket: &Path) -> ExitCode {
    let query = list.conns.query();
    let mut found = match client::ask(socket, Request::Connections(query)) {
        Ok(Response::Connections(found)) => found,
        other => return fail_to_ask(other),
    };
    conns::sort(&mut found);
    let status = if list.query.json {
        print_json(&found)
    } else {
        print(&conns::render(&found.connections))
    };
    tell(&conns::remarks(&found));
    status
}

pub(super) fn show_list(list: &List, socket: &Path) -> ExitCode {
    if list.view.conns {
        return show_connections(list, socket);
    }
    match client::ask(socket, Request::List) {
        Ok(Response::List(found)) if list.query.json && list.view.timing => {
            print_json(&found.timing)
        }
        Ok(Response::List(found)) if list.query.json => print_json(&found),
        Ok(Response::List(found)) if list.view.timing => print(&timing::render(&found.timing)),
        Ok(Response::List(found)) => print(&list::render(&found, list.view())),
        other => fail_to_ask(other),
    }
}

pub(super) fn show_vrrp(query: &Query, socket: &Path) -> ExitCode {
    match client::ask(socket, Request::Vrrp) {
        Ok(Response::Vrrp(status)) if query.json => print_json(&status),
        Ok(Response::Vrrp(status)) => print(&vrrp::render(&status.instances)),
        other => fail_to_ask(other),
    }
}

pub(super) fn reload(query: &Query, socket: &Path) -> ExitCode {
    match client::ask(socket, Request::Reload) {
        Ok(Response::Reload(done)) if query.json => print_json(&done),
        Ok(Response::Reload(done)) => {
            for finding in &done.findings {
                tell(&format!("{finding}\n"));
            }
            if done.changes.is_empty() {
                return print("nothing is different\n");
            }
            print(&(done.changes.join("\n") + "\n"))
        }
        other => fail_to_ask(other),
    }
}

/// Says why there is no answer to show.
fn fail_to_ask(answer: Result<Response, String>) -> ExitCode {
    match answer {
        Ok(Response::Error(message)) | Err(message) => fail(FAILED, &message),
        Ok(_) => fail(FAILED, "the daemon has answered something else"),
    }
}
