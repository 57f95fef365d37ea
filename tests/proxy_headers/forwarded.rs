//! Where a request came from: `Forwarded` (RFC 7239), `X-Forwarded-*`, and whom to believe.

use watershed::proxy_headers::{ForwardedStyle, TrustedHops};

use super::*;

/// Of `X-Forwarded-*` and `Forwarded`, what the inner service sees.
fn claims(layer: &ProxyHeadersLayer, request: Request<Full<Bytes>>) -> Vec<String> {
    let head = passed(layer, request);
    let mut lines = lines(&head.headers);
    lines.retain(|line| !line.starts_with("host: "));
    lines
}

fn seen_as(addr: &str, fields: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = get(fields);
    request.extensions_mut().insert(peer(addr));
    request
}

// B12
#[test]
fn by_default_nobody_is_believed_and_the_peer_is_told_of() {
    let spoofed = [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-for", "10.0.0.1, 10.0.0.2"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=127.0.0.1;host=evil.example;proto=https"),
    ];
    for (style, expected) in [
        (
            ForwardedStyle::XForwarded,
            &[
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-host: h",
                "x-forwarded-proto: http",
            ][..],
        ),
        (
            ForwardedStyle::Rfc7239,
            &["forwarded: for=192.0.2.7;host=h;proto=http"],
        ),
        (
            ForwardedStyle::Both,
            &[
                "forwarded: for=192.0.2.7;host=h;proto=http",
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-host: h",
                "x-forwarded-proto: http",
            ],
        ),
        (ForwardedStyle::Omit, &[]),
    ] {
        let layer = layer().forwarded(style);
        assert_eq!(claims(&layer, get(&spoofed)), expected);
        assert_eq!(claims(&layer, get(&[])), expected, "without claims as well");
        let nobody = layer.trusted_hops(TrustedHops::none().in_forwarded());
        assert_eq!(claims(&nobody, get(&spoofed)), expected);
    }
    assert_eq!(ForwardedStyle::default(), ForwardedStyle::XForwarded);
}

// B12
#[test]
fn a_claim_goes_under_every_name_in_use() {
    for name in [
        "cf-connecting-ip",
        "cf-connecting-ipv6",
        "cf-pseudo-ipv4",
        "client-ip",
        "cloudfront-viewer-address",
        "do-connecting-ip",
        "fastly-client-ip",
        "fly-client-ip",
        "forwarded-for",
        "front-end-https",
        "proxy-client-ip",
        "true-client-ip",
        "wl-proxy-client-ip",
        "x-appengine-user-ip",
        "x-azure-clientip",
        "x-azure-socketip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-envoy-external-address",
        "x-envoy-internal",
        "x-forwarded",
        "x-forwarded-anything",
        "x-forwarded-by",
        "x-forwarded-client-cert",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-scheme",
        "x-forwarded-server",
        "x-forwarded-ssl",
        "x-forwarded-user",
        "x-host",
        "x-original-for",
        "x-original-forwarded-for",
        "x-original-host",
        "x-original-proto",
        "x-original-uri",
        "x-original-url",
        "x-originating-ip",
        "x-real-ip",
        "x-remote-addr",
        "x-remote-ip",
        "x-rewrite-url",
        "x-scheme",
        "x-true-client-ip",
        "x-url-scheme",
        "ali-cdn-real-ip",
        "cdn-src-ip",
        "incap-client-ip",
        "remote-addr",
        "x-http-forwarded-for",
        "x-nf-client-connection-ip",
        "x-proxyuser-ip",
        "x-real-port",
        "x-vercel-forwarded-for",
        // To CGI, WSGI and their like these are the same; to some, so is every other character.
        "x_forwarded_for",
        "x_forwarded-for",
        "x-forwarded_for",
        "x-forwarded_host",
        "x_real_ip",
        "x.forwarded.for",
        "x~real~ip",
        "x-forwarded.proto",
    ] {
        for value in ["127.0.0.1", ""] {
            let fields = [(name, value), (name, value), ("x-kept", "1")];
            for style in [ForwardedStyle::Omit, ForwardedStyle::Rfc7239] {
                let layer = layer().forwarded(style);
                let head = passed(&layer, get(&fields));
                assert!(!head.headers.contains_key(name), "{name}");
                assert!(head.headers.contains_key("x-kept"));
            }
            let head = passed(&layer(), get(&fields));
            assert_ne!(line(&head.headers, name), Some(value), "{name}");
        }
    }
    // These only look like it.
    for name in [
        "x-forwardedness",
        "x-forward-for",
        "x-realm",
        "x-hosted",
        "x-real-ipsum",
        "forwarding",
    ] {
        let head = passed(&layer(), get(&[(name, "1")]));
        assert_eq!(line(&head.headers, name), Some("1"));
    }
}

#[test]
fn a_peer_is_written_as_it_should_be() {
    for (addr, plain, quoted) in [
        ("192.0.2.7:1", "192.0.2.7", "192.0.2.7"),
        ("[2001:db8::7]:1", "2001:db8::7", "\"[2001:db8::7]\""),
        ("[::1]:1", "::1", "\"[::1]\""),
        // One of IPv4, however the socket names it.
        ("[::ffff:192.0.2.7]:1", "192.0.2.7", "192.0.2.7"),
        // A zone means something on this machine only.
        ("[fe80::1%3]:1", "fe80::1", "\"[fe80::1]\""),
    ] {
        let both = layer().forwarded(ForwardedStyle::Both);
        assert_eq!(
            claims(&both, seen_as(addr, &[])),
            [
                format!("forwarded: for={quoted};host=h;proto=http"),
                format!("x-forwarded-for: {plain}"),
                "x-forwarded-host: h".into(),
                "x-forwarded-proto: http".into(),
            ]
        );
        let mut over_tls = seen_as(addr, &[]);
        over_tls.extensions_mut().insert(peer(addr).over_tls());
        assert_eq!(
            claims(&both, over_tls),
            [
                format!("forwarded: for={quoted};host=h;proto=https"),
                format!("x-forwarded-for: {plain}"),
                "x-forwarded-host: h".into(),
                "x-forwarded-proto: https".into(),
            ]
        );
    }
}

#[test]
fn a_host_is_quoted_where_it_has_to_be() {
    let layer = layer().forwarded(ForwardedStyle::Rfc7239);
    for (host, written) in [
        ("a.example", "a.example"),
        ("a.example:80", "\"a.example:80\""),
        ("[::1]", "\"[::1]\""),
        ("[::1]:80", "\"[::1]:80\""),
    ] {
        let expected = format!("forwarded: for=192.0.2.7;host={written};proto=http");
        assert_eq!(claims(&layer, get(&[("host", host)])), [expected]);
    }
    let old = request("GET / HTTP/1.0", &[]);
    assert_eq!(claims(&layer, old), ["forwarded: for=192.0.2.7;proto=http"]);
}

/// What is written of the way here: of `X-Forwarded-For` from `claimed`, and of `Forwarded`.
fn way(trusted: TrustedHops, peer: &str, claimed: &[(&str, &str)]) -> (String, String) {
    let layer = layer()
        .trusted_hops(trusted)
        .forwarded(ForwardedStyle::Both);
    let head = passed(&layer, seen_as(peer, claimed));
    let plain = line(&head.headers, "x-forwarded-for")
        .expect("written")
        .to_owned();
    let quoted = line(&head.headers, "forwarded")
        .expect("written")
        .to_owned();
    (plain, quoted)
}

/// `claimed` as lines of `X-Forwarded-For`.
fn x_for<'a>(claimed: &[&'a str]) -> Vec<(&'static str, &'a str)> {
    claimed
        .iter()
        .map(|line| ("x-forwarded-for", *line))
        .collect()
}

// B12
#[test]
fn the_last_hops_are_believed_as_far_as_they_go() {
    for (trusted, claimed, expected) in [
        (0, &["1.1.1.1"][..], &[][..]),
        (1, &[], &[]),
        (1, &["1.1.1.1"], &["1.1.1.1"]),
        // What the client has sent stands on the left of what the proxy has added.
        (1, &["127.0.0.1, 1.1.1.1"], &["1.1.1.1"]),
        (1, &["127.0.0.1", "1.1.1.1"], &["1.1.1.1"]),
        (1, &["1.1.1.1", "127.0.0.1"], &["127.0.0.1"]),
        (
            2,
            &["127.0.0.1, 1.1.1.1, 10.0.0.1"],
            &["1.1.1.1", "10.0.0.1"],
        ),
        (
            2,
            &["127.0.0.1", "1.1.1.1 ,\t10.0.0.1"],
            &["1.1.1.1", "10.0.0.1"],
        ),
        // Fewer than trusted: all of them.
        (2, &["1.1.1.1"], &["1.1.1.1"]),
        (64, &["1.1.1.1,10.0.0.1"], &["1.1.1.1", "10.0.0.1"]),
        (usize::MAX, &["1.1.1.1,10.0.0.1"], &["1.1.1.1", "10.0.0.1"]),
        // Empty elements are none (RFC 9110 §5.6.1).
        (1, &["1.1.1.1, ,,"], &["1.1.1.1"]),
        (1, &["1.1.1.1", ""], &["1.1.1.1"]),
        (1, &["", ","], &[]),
        // All the ways to write an address.
        (1, &["1.1.1.1:80"], &["1.1.1.1"]),
        (1, &["2001:db8::1"], &["2001:db8::1"]),
        (1, &["[2001:db8::1]"], &["2001:db8::1"]),
        (1, &["[2001:DB8:0::1]:80"], &["2001:db8::1"]),
        (1, &["::ffff:1.1.1.1"], &["1.1.1.1"]),
        (1, &["[::ffff:1.1.1.1]:80"], &["1.1.1.1"]),
        (1, &["unknown"], &["unknown"]),
        (1, &["_hidden-1.x"], &["_hidden-1.x"]),
        (1, &["unknown:80"], &["unknown"]),
        (1, &["_x:80"], &["_x"]),
        // A port may hide as well (RFC 7239 §6).
        (1, &["1.1.1.1:_x"], &["1.1.1.1"]),
        (1, &["[::1]:_x"], &["::1"]),
        (1, &["_x:_y"], &["_x"]),
        // What is none ends it.
        (1, &["evil"], &[]),
        (1, &["1.1.1.1, evil"], &[]),
        (2, &["1.1.1.1, evil, 10.0.0.1"], &["10.0.0.1"]),
        (1, &["1.1.1.1.1"], &[]),
        (1, &["01.1.1.1"], &[]),
        (1, &["1.1.1"], &[]),
        (1, &["0x1.1.1.1"], &[]),
        (1, &["16843009"], &[]),
        (1, &["1.1.1.1:"], &[]),
        (1, &["1.1.1.1:65536"], &[]),
        (1, &["1.1.1.1:x"], &[]),
        (1, &["1.1.1.1:_"], &[]),
        (1, &["1.1.1.1:_x:_y"], &[]),
        (1, &["unknown:"], &[]),
        (1, &["_x:65536"], &[]),
        (1, &["_x:+80"], &[]),
        (1, &["::1:_x"], &[]),
        (1, &["[1.1.1.1]:_x"], &[]),
        (1, &["[1.1.1.1]"], &[]),
        (1, &["[::1"], &[]),
        (1, &["::1]"], &[]),
        (1, &["[::1]x"], &[]),
        (1, &["\"1.1.1.1\""], &[]),
        (1, &["for=1.1.1.1"], &[]),
        (1, &["1.1.1.1 2.2.2.2"], &[]),
        (1, &["_"], &[]),
        (1, &["_a b"], &[]),
        (1, &["_\u{e9}"], &[]),
        (1, &["1.1.1.1;proto=https"], &[]),
        (1, &["１.1.1.1"], &[]),
    ] {
        let (plain, _) = way(TrustedHops::last(trusted), PEER, &x_for(claimed));
        let expected = [expected, &["192.0.2.7"]].concat().join(", ");
        assert_eq!(plain, expected, "{trusted} of {claimed:?}");
    }
}

// B12
#[test]
fn proxies_in_known_networks_are_believed_as_many_as_there_are() {
    let networks = ["10.0.0.0/8", "fd00::/8", "192.0.2.99"];
    for (peer, claimed, expected) in [
        // The peer is none of them.
        ("192.0.2.7:1", "1.1.1.1", &["192.0.2.7"][..]),
        ("192.0.2.7:1", "1.1.1.1, 10.0.0.1", &["192.0.2.7"]),
        ("192.0.2.99:1", "1.1.1.1", &["1.1.1.1", "192.0.2.99"]),
        ("10.0.0.9:1", "1.1.1.1", &["1.1.1.1", "10.0.0.9"]),
        ("10.0.0.9:1", "127.0.0.1, 1.1.1.1", &["1.1.1.1", "10.0.0.9"]),
        (
            "10.0.0.9:1",
            "127.0.0.1, 1.1.1.1, 10.0.0.1",
            &["1.1.1.1", "10.0.0.1", "10.0.0.9"],
        ),
        // Only as long as they follow each other: this 10.0.0.1 is what the client says.
        (
            "10.0.0.9:1",
            "10.0.0.1, 1.1.1.1, fd00::1",
            &["1.1.1.1", "fd00::1", "10.0.0.9"],
        ),
        ("10.0.0.9:1", "10.0.0.1", &["10.0.0.1", "10.0.0.9"]),
        ("10.0.0.9:1", "", &["10.0.0.9"]),
        // Of IPv4, however it is written.
        (
            "[::ffff:10.0.0.9]:1",
            "1.1.1.1, ::ffff:10.0.0.1",
            &["1.1.1.1", "10.0.0.1", "10.0.0.9"],
        ),
        (
            "10.0.0.9:1",
            "1.1.1.1, 10.0.0.1:80",
            &["1.1.1.1", "10.0.0.1", "10.0.0.9"],
        ),
        // Who hides can't be known.
        ("10.0.0.9:1", "1.1.1.1, unknown", &["unknown", "10.0.0.9"]),
        (
            "10.0.0.9:1",
            "1.1.1.1, _x, 10.0.0.1",
            &["_x", "10.0.0.1", "10.0.0.9"],
        ),
        (
            "10.0.0.9:1",
            "1.1.1.1, evil, 10.0.0.1",
            &["10.0.0.1", "10.0.0.9"],
        ),
    ] {
        let (plain, _) = way(TrustedHops::networks(networks), peer, &x_for(&[claimed]));
        assert_eq!(plain, expected.join(", "), "{claimed:?} from {peer}");
    }
    assert!(TrustedHops::try_networks(["10.0.0.0/8", "here"]).is_err());
    assert!(std::panic::catch_unwind(|| TrustedHops::networks(["10.0.0.0/33"])).is_err());
    let (plain, _) = way(
        TrustedHops::networks([]),
        "10.0.0.9:1",
        &x_for(&["1.1.1.1"]),
    );
    assert_eq!(plain, "10.0.0.9");
}

// DESIGN rule 5
#[test]
fn however_long_the_list_is_64_hops_are_kept() {
    let list = vec!["10.0.0.1"; 5000].join(", ");
    let element = vec!["for=10.0.0.1"; 5000].join(", ");
    let networks = TrustedHops::networks(["10.0.0.0/8"]);
    for trusted in [networks, TrustedHops::last(5000)] {
        let (plain, _) = way(trusted.clone(), "10.0.0.9:1", &x_for(&[&list]));
        assert_eq!(plain.split(", ").count(), 65);
        let fields: Vec<_> = (0..4).map(|_| ("forwarded", &*element)).collect();
        let (_, quoted) = way(trusted.in_forwarded(), "10.0.0.9:1", &fields);
        assert_eq!(quoted.split(", ").count(), 65);
    }
}

// B12
#[test]
fn forwarded_is_read_as_rfc_7239_has_it() {
    const OWN: &str = "for=192.0.2.7;host=h;proto=http";
    for (trusted, claimed, expected) in [
        (0, &["for=1.1.1.1"][..], &[][..]),
        (1, &[], &[]),
        (1, &["for=1.1.1.1"], &["for=1.1.1.1"]),
        (1, &["for=127.0.0.1, for=1.1.1.1"], &["for=1.1.1.1"]),
        (1, &["for=127.0.0.1", "for=1.1.1.1"], &["for=1.1.1.1"]),
        (
            2,
            &["for=1.1.1.1", "for=10.0.0.1"],
            &["for=1.1.1.1", "for=10.0.0.1"],
        ),
        (
            1,
            &["For=1.1.1.1;PROTO=https;Host=a"],
            &["for=1.1.1.1;host=a;proto=https"],
        ),
        (
            1,
            &["host=a;proto=http;by=10.0.0.1;for=1.1.1.1"],
            &["for=1.1.1.1;host=a;proto=http"],
        ),
        (
            1,
            &["for=1.1.1.1 ; proto=https ;"],
            &["for=1.1.1.1;proto=https"],
        ),
        (1, &["for=1.1.1.1;secret=x"], &["for=1.1.1.1"]),
        (1, &["for=\"1.1.1.1\""], &["for=1.1.1.1"]),
        (1, &["for=\"1.1.1.1:80\""], &["for=1.1.1.1"]),
        (1, &["for=\"\\1.1.1\\.1\""], &["for=1.1.1.1"]),
        (1, &["for=\"[2001:db8::1]\""], &["for=\"[2001:db8::1]\""]),
        (1, &["for=\"[2001:db8::1]:80\""], &["for=\"[2001:db8::1]\""]),
        // Without the quotes that it should have.
        (1, &["for=[2001:db8::1]:80"], &["for=\"[2001:db8::1]\""]),
        (
            1,
            &["for=1.1.1.1;host=a:80"],
            &["for=1.1.1.1;host=\"a:80\""],
        ),
        (
            1,
            &["for=1.1.1.1;host=\"[::1]:80\""],
            &["for=1.1.1.1;host=\"[::1]:80\""],
        ),
        (1, &["for=unknown"], &["for=unknown"]),
        (1, &["for=_hidden"], &["for=_hidden"]),
        (1, &["for=\"_hidden\""], &["for=_hidden"]),
        (1, &["for=\"[2001:db8::1]:_x\""], &["for=\"[2001:db8::1]\""]),
        (1, &["for=\"_hidden:80\""], &["for=_hidden"]),
        // Commas and semicolons in quotes are no ends.
        (1, &["for=1.1.1.1;x=\"a,b;for=2.2.2.2\""], &["for=1.1.1.1"]),
        (
            1,
            &["for=2.2.2.2, for=1.1.1.1;x=\"\\\", for=3.3.3.3\""],
            &["for=1.1.1.1"],
        ),
        (1, &["x=\"a,for=2.2.2.2\", for=1.1.1.1"], &["for=1.1.1.1"]),
        // Of what is said badly, only that is not believed.
        (1, &["for=1.1.1.1;host=\"a b\""], &["for=1.1.1.1"]),
        (1, &["for=1.1.1.1;host=\"user@a\""], &["for=1.1.1.1"]),
        (1, &["for=1.1.1.1;proto=\"h,s\""], &["for=1.1.1.1"]),
        (1, &["for=1.1.1.1;proto=1"], &["for=1.1.1.1"]),
        // What is none ends it.
        (1, &["1.1.1.1"], &[]),
        (1, &["for"], &[]),
        (1, &["for="], &[]),
        (1, &["for=\"\""], &[]),
        (1, &["=1.1.1.1"], &[]),
        (1, &["for =1.1.1.1"], &[]),
        (1, &["for= 1.1.1.1"], &[]),
        (1, &["for=1.1.1.1;for=2.2.2.2"], &[]),
        (1, &["for=1.1.1.1;host=a;host=b"], &[]),
        (1, &["for=1.1.1.1;a b=c"], &[]),
        (1, &["for=1.1.1.1;x"], &[]),
        (1, &["for=1.1.1.1;x=a b"], &[]),
        (1, &["proto=https;host=a"], &[]),
        (1, &["for=evil"], &[]),
        (1, &["for=2001:db8::1"], &["for=\"[2001:db8::1]\""]),
        (1, &["for=\"1.1.1.1\"x"], &[]),
        (1, &["for=1.1\".1.1\""], &[]),
        (2, &["for=1.1.1.1, evil", "for=10.0.0.1"], &["for=10.0.0.1"]),
        (1, &["", ",", "for=1.1.1.1,,"], &["for=1.1.1.1"]),
    ] {
        let fields: Vec<_> = claimed.iter().map(|line| ("forwarded", *line)).collect();
        let trusted = TrustedHops::last(trusted).in_forwarded();
        let (_, quoted) = way(trusted, PEER, &fields);
        let expected = [expected, &[OWN]].concat().join(", ");
        assert_eq!(quoted, expected, "{claimed:?}");
    }
    // B19
    let mut request = get(&[]);
    let line = HeaderValue::from_bytes(b"for=\"\xff\", for=1.1.1.1").expect("a value");
    request.headers_mut().insert("forwarded", line);
    let layer = layer()
        .trusted_hops(TrustedHops::last(9).in_forwarded())
        .forwarded(ForwardedStyle::Rfc7239);
    assert_eq!(
        claims(&layer, request),
        [format!("forwarded: for=1.1.1.1, {OWN}")]
    );
}

/// A proxy of ours has added to a line that a stranger has begun with a quote. Nobody can tell what is whose, and a stranger
/// who made himself vanish would leave our own proxy as the one who asks.
#[test]
fn a_forwarded_line_with_a_quote_that_never_ends_is_refused() {
    for (trusted, claimed) in [
        (1, &["for=127.0.0.1\", for=1.1.1.1"][..]),
        (1, &["for=127.0.0.1\", for=\"[2001:db8::1]\""]),
        (1, &["for=\"1.1.1.1"]),
        (1, &["for=1.1.1.1\""]),
        (1, &["for=1.1.1.1;x=\"a"]),
        (1, &["for=1.1.1.1;x=\"a\\\""]),
        (1, &["for=1.1.1.1, \""]),
        (1, &["\""]),
        // It is not read past, and not closed by another.
        (1, &["for=1.1.1.1", "for=\"6.6.6.6"]),
        (2, &["for=\"1.1.1.1", "for=10.0.0.1\""]),
        (3, &["for=1.1.1.1", "x=\"", "for=10.0.0.1"]),
        (2, &["for=\"2.2.2.2, for=1.1.1.1", "for=10.0.0.1"]),
    ] {
        let fields: Vec<_> = claimed.iter().map(|line| ("forwarded", *line)).collect();
        let hops = |count| layer().trusted_hops(TrustedHops::last(count).in_forwarded());
        assert_refused(&hops(trusted), get(&fields), 400);
        // Whom nobody believes, nobody reads.
        passed(&hops(0), get(&fields));
        passed(&hops(trusted).forwarded(ForwardedStyle::Omit), get(&fields));
        passed(
            &layer().trusted_hops(TrustedHops::last(trusted)),
            get(&fields),
        );
        if claimed.len() > trusted {
            continue;
        }
        let networks = TrustedHops::networks(["192.0.2.0/24", "10.0.0.0/8"]).in_forwarded();
        assert_refused(&layer().trusted_hops(networks), get(&fields), 400);
    }
    // What is on the left of the trust is not read.
    for (trusted, claimed) in [
        (1, ["for=\"6.6.6.6", "for=1.1.1.1"]),
        (1, ["\"", "for=1.1.1.1"]),
    ] {
        let fields = claimed.map(|line| ("forwarded", line));
        let (_, quoted) = way(TrustedHops::last(trusted).in_forwarded(), PEER, &fields);
        assert_eq!(quoted, "for=1.1.1.1, for=192.0.2.7;host=h;proto=http");
    }
}

#[test]
fn forwarded_is_translated_into_the_other_style() {
    let trusted = TrustedHops::last(2).in_forwarded();
    for (claimed, expected) in [
        (
            "for=\"[2001:db8::1]:80\";host=shop.example;proto=https, for=10.0.0.1;host=inner;proto=http",
            ["2001:db8::1, 10.0.0.1, 192.0.2.7", "shop.example", "https"],
        ),
        // The first that anybody has said it of.
        (
            "for=1.1.1.1, for=10.0.0.1;host=inner",
            ["1.1.1.1, 10.0.0.1, 192.0.2.7", "inner", "http"],
        ),
        ("for=_x", ["_x, 192.0.2.7", "h", "http"]),
    ] {
        let layer = layer().trusted_hops(trusted.clone());
        let spoofed = ("x-forwarded-for", "6.6.6.6");
        let claims = claims(
            &layer,
            get(&[("forwarded", claimed), spoofed, ("x-forwarded-port", "1")]),
        );
        let [way, host, proto] = expected;
        assert_eq!(
            claims,
            [
                format!("x-forwarded-for: {way}"),
                format!("x-forwarded-host: {host}"),
                format!("x-forwarded-proto: {proto}"),
            ]
        );
    }
}

// B12
#[test]
fn only_one_of_the_two_is_ever_read() {
    let both = [
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-host", "x.example"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=2.2.2.2;host=f.example;proto=wss"),
    ];
    let trusted = TrustedHops::last(1).writing([HOST]);
    let layer = |trusted| {
        layer()
            .trusted_hops(trusted)
            .forwarded(ForwardedStyle::Both)
    };
    assert_eq!(
        claims(&layer(trusted.clone()), get(&both)),
        [
            "forwarded: for=1.1.1.1;host=x.example;proto=https, for=192.0.2.7;host=h;proto=http",
            "x-forwarded-for: 1.1.1.1, 192.0.2.7",
            "x-forwarded-host: x.example",
            "x-forwarded-proto: https",
        ]
    );
    assert_eq!(
        claims(&layer(trusted.in_forwarded()), get(&both)),
        [
            "forwarded: for=2.2.2.2;host=f.example;proto=wss, for=192.0.2.7;host=h;proto=http",
            "x-forwarded-for: 2.2.2.2, 192.0.2.7",
            "x-forwarded-host: f.example",
            "x-forwarded-proto: wss",
        ]
    );
}

#[test]
fn what_a_trusted_proxy_says_of_host_and_protocol_is_believed() {
    for (claimed, host, proto) in [
        (&[("x-forwarded-proto", "https")][..], "h", "https"),
        (
            &[("x-forwarded-host", "a.example:80")],
            "a.example:80",
            "http",
        ),
        // Each adds its own at the end: what stands on the left of it is what the client has sent.
        (
            &[
                ("x-forwarded-for", "6.6.6.6, 1.1.1.1"),
                ("x-forwarded-host", "evil.example, a.example"),
                ("x-forwarded-proto", "evil"),
                ("x-forwarded-proto", "https"),
            ],
            "a.example",
            "https",
        ),
        // What is no host and no scheme is not believed.
        (
            &[("x-forwarded-host", "a b"), ("x-forwarded-proto", "h:")],
            "h",
            "http",
        ),
        (
            &[("x-forwarded-host", "user@a"), ("x-forwarded-proto", "1h")],
            "h",
            "http",
        ),
        (
            &[
                ("x-forwarded-host", "\u{e9}"),
                ("x-forwarded-proto", "h\u{e9}"),
            ],
            "h",
            "http",
        ),
        (
            &[("x-forwarded-host", ""), ("x-forwarded-proto", "")],
            "h",
            "http",
        ),
    ] {
        let layer = layer().trusted_hops(TrustedHops::last(1).writing([HOST]));
        let head = passed(&layer, get(claimed));
        assert_eq!(
            line(&head.headers, "x-forwarded-host"),
            Some(host),
            "{claimed:?}"
        );
        assert_eq!(
            line(&head.headers, "x-forwarded-proto"),
            Some(proto),
            "{claimed:?}"
        );
        // If the peer is a stranger, none of it is.
        let layer = layer.trusted_hops(TrustedHops::networks(["10.0.0.0/8"]));
        let head = passed(&layer, get(claimed));
        assert_eq!(line(&head.headers, "x-forwarded-host"), Some("h"));
        assert_eq!(line(&head.headers, "x-forwarded-proto"), Some("http"));
    }
    // Said of the first of two proxies, if the second has left it alone.
    let layer = layer()
        .trusted_hops(TrustedHops::last(2))
        .forwarded(ForwardedStyle::Rfc7239);
    let two = ("x-forwarded-for", "1.1.1.1, 10.0.0.1");
    assert_eq!(
        claims(&layer, get(&[two, ("x-forwarded-proto", "https")])),
        ["forwarded: for=1.1.1.1;proto=https, for=10.0.0.1, for=192.0.2.7;host=h;proto=http"]
    );
    assert_eq!(
        claims(
            &layer,
            get(&[two, ("x-forwarded-proto", "evil, https, http")])
        ),
        ["forwarded: for=1.1.1.1;proto=https, for=10.0.0.1, for=192.0.2.7;host=h;proto=http"]
    );
}

// B12
#[test]
fn of_a_trusted_proxy_only_what_it_writes_is_believed() {
    let fields = [
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-prefix", "/shop"),
        ("x-forwarded-user", "root"),
        ("x-real-ip", "6.6.6.6"),
    ];
    // Most write two fields, and hand the others on as the client has sent them.
    let trusting = layer().trusted_hops(TrustedHops::last(1));
    assert_eq!(
        claims(&trusting, get(&fields)),
        [
            "x-forwarded-for: 192.0.2.7",
            "x-forwarded-host: h",
            "x-forwarded-proto: http"
        ]
    );
    let port = HeaderName::from_static("x-forwarded-port");
    let real_ip = HeaderName::from_static("x-real-ip");
    let trusting = layer().trusted_hops(TrustedHops::last(1).writing([port, real_ip]));
    let head = passed(&trusting, get(&fields));
    assert_eq!(line(&head.headers, "x-forwarded-host"), Some("h"));
    assert_eq!(line(&head.headers, "x-forwarded-port"), Some("443"));
    assert_eq!(line(&head.headers, "x-real-ip"), Some("6.6.6.6"));
    assert!(!head.headers.contains_key("x-forwarded-prefix"));
    assert!(!head.headers.contains_key("x-forwarded-user"));
    // Of any name: it is dropped if a stranger has sent it, or somebody has who writes it in another way; and can't be
    // named away.
    let verified = HeaderName::from_static("x-ssl-client-verify");
    let front = TrustedHops::networks(["10.0.0.0/8"]).writing([verified]);
    for (from, fields, told) in [
        (
            "10.0.0.1:1",
            &[("x-ssl-client-verify", "SUCCESS")][..],
            true,
        ),
        (
            "203.0.113.1:1",
            &[("x-ssl-client-verify", "SUCCESS")],
            false,
        ),
        (
            "10.0.0.1:1",
            &[
                ("connection", "x-ssl-client-verify"),
                ("x-ssl-client-verify", "SUCCESS"),
            ],
            true,
        ),
        ("10.0.0.1:1", &[("x_ssl_client_verify", "SUCCESS")], false),
    ] {
        let front = layer().trusted_hops(front.clone());
        let head = passed(&front, seen_as(from, fields));
        let verified = line(&head.headers, "x-ssl-client-verify");
        assert_eq!(verified.is_some(), told, "{from}: {fields:?}");
        assert!(!head.headers.contains_key("x_ssl_client_verify"));
    }
    // As it writes them: a name that only looks like one of them to some servers is none of its own.
    let head = passed(&trusting, get(&[("x-forwarded-client_cert", "evil")]));
    assert!(!head.headers.contains_key("x-forwarded-client_cert"));
    // "A backend sees this proxy only."
    let silent = trusting.forwarded(ForwardedStyle::Omit);
    assert_eq!(claims(&silent, get(&fields)), [""; 0]);
    // A stranger is not.
    let stranger = layer().trusted_hops(TrustedHops::networks(["10.0.0.0/8"]));
    let head = passed(&stranger, get(&fields));
    assert!(!head.headers.contains_key("x-forwarded-port"));
}

#[test]
fn two_proxies_in_a_row_tell_of_the_client_once() {
    for style in [
        ForwardedStyle::XForwarded,
        ForwardedStyle::Rfc7239,
        ForwardedStyle::Both,
    ] {
        let first = layer().forwarded(style);
        let trusted = match style {
            ForwardedStyle::Rfc7239 => TrustedHops::last(1).in_forwarded(),
            _ => TrustedHops::last(1).writing([HOST]),
        };
        let second = layer()
            .trusted_hops(trusted)
            .forwarded(ForwardedStyle::Both);
        let spoofed = [
            ("x-forwarded-for", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
            ("x-forwarded-host", "evil"),
        ];
        let mut head = passed(&first, get(&spoofed));
        head.extensions.insert(peer("10.0.0.1:1"));
        head.headers
            .insert("host", HeaderValue::from_static("inner"));
        let claims = claims(&second, Request::from_parts(head, Full::default()));
        assert_eq!(
            claims,
            [
                "forwarded: for=192.0.2.7;host=h;proto=http, for=10.0.0.1;host=inner;proto=http",
                "x-forwarded-for: 192.0.2.7, 10.0.0.1",
                "x-forwarded-host: h",
                "x-forwarded-proto: http",
            ]
        );
    }
}
