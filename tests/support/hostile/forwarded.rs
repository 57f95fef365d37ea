//! B12: what a request claims of its way here.

use super::{Ask, BOTH_PROTOCOLS, Rig};

/// What the caller claims, and what the backend is told: for, host and proto.
type Told<'a> = (&'a [(&'a str, &'a str)], [&'a str; 3]);

async fn are_told(hops: usize, cases: &[Told<'_>]) {
    let rig = Rig::trusting(hops).await;
    for protocol in BOTH_PROTOCOLS {
        for (claims, told) in cases {
            let ask = claims.iter().fold(Ask::get("/x/7"), |ask, (name, value)| {
                ask.field(name, value)
            });
            let request = rig.passes(protocol, &ask).await;
            let fields = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]
                .map(|name| request.head.fields.all(name).join(" | "));
            assert_eq!(fields, *told, "{hops} hops, {protocol:?}: {claims:?}");
            assert_eq!(request.head.fields.all("forwarded"), [""; 0]);
        }
    }
}

const SPOOFED: [(&str, &str); 4] = [
    ("X-Forwarded-For", "127.0.0.1, 192.0.2.1"),
    ("X-Forwarded-For", "192.0.2.2"),
    ("X-Forwarded-Host", "first.test, second.test, third.test"),
    ("X-Forwarded-Proto", "https, wss, ftp"),
];

#[tokio::test]
async fn nobody_is_believed_by_default() {
    let own = ["127.0.0.1", "caller.test", "http"];
    are_told(
        0,
        &[
            (&[], own),
            (&SPOOFED, own),
            (
                &[("Forwarded", "for=127.0.0.1;host=admin.test;proto=https")],
                own,
            ),
            (&[("X_Forwarded_For", "127.0.0.1")], own),
            (&[("X-Forwarded_For", "127.0.0.1")], own),
        ],
    )
    .await;
}

#[tokio::test]
async fn one_hop_is_believed_and_no_more() {
    are_told(
        1,
        &[
            (&[], ["127.0.0.1", "caller.test", "http"]),
            (&SPOOFED, ["192.0.2.2, 127.0.0.1", "caller.test", "ftp"]),
            (
                &[("X-Forwarded-For", "192.0.2.2")],
                ["192.0.2.2, 127.0.0.1", "caller.test", "http"],
            ),
            // Without a hop, a proxy may still say by what it was asked. That it writes the host, too, was not said.
            (
                &[
                    ("X-Forwarded-Host", "shop.test"),
                    ("X-Forwarded-Proto", "https"),
                ],
                ["127.0.0.1", "caller.test", "https"],
            ),
            // What isn't an address ends the trust; so does what is no host, and no scheme.
            (
                &[("X-Forwarded-For", "192.0.2.1, evil")],
                ["127.0.0.1", "caller.test", "http"],
            ),
            (
                &[
                    ("X-Forwarded-For", "192.0.2.1, 192.0.2.2;x"),
                    ("X-Forwarded-Host", "a b/@"),
                ],
                ["127.0.0.1", "caller.test", "http"],
            ),
            (
                &[
                    ("X-Forwarded-For", "[2001:db8::1]:4711"),
                    ("X-Forwarded-Host", "user@evil.test"),
                    ("X-Forwarded-Proto", "java script:"),
                ],
                ["2001:db8::1, 127.0.0.1", "caller.test", "http"],
            ),
            (
                &[("X-Forwarded-For", "unknown")],
                ["unknown, 127.0.0.1", "caller.test", "http"],
            ),
            // It was not said that they write this one.
            (
                &[("Forwarded", "for=192.0.2.1;host=admin.test;proto=https")],
                ["127.0.0.1", "caller.test", "http"],
            ),
            (
                &[
                    ("X_Forwarded_For", "192.0.2.1"),
                    ("X_Forwarded_Host", "admin.test"),
                ],
                ["127.0.0.1", "caller.test", "http"],
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn two_hops_are_believed_and_no_more() {
    are_told(
        2,
        &[
            (
                &SPOOFED,
                ["192.0.2.1, 192.0.2.2, 127.0.0.1", "caller.test", "wss"],
            ),
            (
                &[("X-Forwarded-For", "192.0.2.1, evil, 192.0.2.2")],
                ["192.0.2.2, 127.0.0.1", "caller.test", "http"],
            ),
            (
                &[("X-Forwarded-For", "192.0.2.2")],
                ["192.0.2.2, 127.0.0.1", "caller.test", "http"],
            ),
            (
                &[("X-Forwarded-For", ",, 192.0.2.1 ,,, 192.0.2.2,")],
                ["192.0.2.1, 192.0.2.2, 127.0.0.1", "caller.test", "http"],
            ),
        ],
    )
    .await;
}

const OTHER_CLAIMS: [&str; 16] = [
    "CF-Connecting-IP",
    "Fastly-Client-IP",
    "Forwarded",
    "True-Client-IP",
    "True_Client_IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "X-Envoy-External-Address",
    "X-Forwarded",
    "X-Original-Forwarded-For",
    "X-Original-Host",
    "X-Original-URL",
    "X-Real-IP",
    "X-Rewrite-URL",
    "X_Forwarded_Host",
    "X_Real_IP",
];

/// Under whatever name.
#[tokio::test]
async fn no_other_claim_goes_through() {
    for hops in [0, 1, 2] {
        let rig = Rig::trusting(hops).await;
        for protocol in BOTH_PROTOCOLS {
            let ask = OTHER_CLAIMS
                .iter()
                .chain(&["X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-User"])
                .fold(Ask::get("/x/7"), |ask, name| ask.field(name, "claimed"));
            let request = rig.passes(protocol, &ask).await;
            let claims: Vec<&str> = request
                .head
                .fields
                .iter()
                .filter_map(|(name, value)| (value == "claimed").then_some(name))
                .collect();
            assert_eq!(claims, [""; 0], "{hops} hops, {protocol:?}");
        }
    }
}
