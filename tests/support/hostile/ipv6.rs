//! B43: addresses in brackets where a host stands, and without where an address does.
//!
//! They need the machine to have `::1`, and fail with a line that says so if it does not.

use std::net::{IpAddr, Ipv6Addr};

use super::{Ask, BOTH_PROTOCOLS, Rig};
use crate::backend::{Backend, json};

const HERE: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Everybody is at `::1`.
async fn rig(backend: Backend, hops: usize) -> Rig {
    let run = crate::run(&backend, hops);
    let server = run.flag("listen", "[::1]:0").start().await;
    assert_eq!(server.address.ip(), HERE);
    Rig { backend, server }
}

fn answers() -> Backend {
    Backend::replies_at(HERE, |_| json("{}"))
}

#[tokio::test]
async fn a_backend_is_asked_by_its_address_in_brackets() {
    let rig = rig(answers(), 0).await;
    let own = format!("[::1]:{}", rig.server.address.port());
    let backend = format!("[::1]:{}", rig.backend.address().port());
    for protocol in BOTH_PROTOCOLS {
        for host in ["caller.test", "[::1]", "[2001:db8::1]:8080", &own] {
            let ask = Ask::get("/x/7").host(host);
            let request = rig.passes(protocol, &ask).await;
            assert_eq!(request.target, "/x/7");
            let fields = [
                ("host", &*backend),
                ("x-forwarded-for", "::1"),
                ("x-forwarded-host", host),
                ("x-forwarded-proto", "http"),
            ];
            for (name, value) in fields {
                assert_eq!(request.head.fields.all(name), [value], "{protocol:?}");
            }
            assert_eq!(request.field("forwarded"), None);
        }
    }
}

#[tokio::test]
async fn the_way_of_a_request_is_told_by_bare_addresses() {
    let rig = rig(answers(), 1).await;
    for protocol in BOTH_PROTOCOLS {
        for (claim, way) in [
            ("2001:db8::1", "2001:db8::1, ::1"),
            ("[2001:DB8:0::1]:80", "2001:db8::1, ::1"),
            ("127.0.0.1, 192.0.2.1", "192.0.2.1, ::1"),
            ("[::1", "::1"),
        ] {
            let ask = Ask::get("/x/7").field("X-Forwarded-For", claim);
            let request = rig.passes(protocol, &ask).await;
            assert_eq!(request.field("x-forwarded-for"), Some(way), "{claim}");
        }
    }
}

/// Every answer is searched for the backend's address.
#[tokio::test]
async fn a_backend_that_is_not_there_is_a_502() {
    let rig = rig(Backend::refuses_at(HERE), 0).await;
    for protocol in BOTH_PROTOCOLS {
        let answer = rig.server.ask(protocol, &Ask::get("/x/7")).await;
        answer.problem(502);
    }
}
