//! The command line: what is refused and how, and which route a flag belongs to.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use crate::NOISE;
use crate::backend::{Backend, answer, json};
use crate::caller::request;
use crate::process::{Exit, Run};

/// A route that is all right.
fn route() -> Run {
    Run::new()
        .route("/dash/{id}")
        .flag("branch", "user=http://127.0.0.1:9/users/{id}")
}

/// One line on standard error that names the flag, exit code 2, nothing on standard output.
#[track_caller]
fn assert_refused(exit: &Exit, flag: &str) {
    assert_eq!(exit.code, Some(2), "{flag}: {exit:?}");
    assert_eq!(exit.stdout, "", "{flag}: {exit:?}");
    assert_eq!(exit.stderr.matches('\n').count(), 1, "{flag}: {exit:?}");
    assert!(exit.stderr.ends_with('\n'), "{flag}: {exit:?}");
    let named = exit.stderr.contains(&format!("--{flag}"));
    assert!(named, "{flag}: {exit:?}");
}

async fn assert_values_refused(flag: &str, values: &[&str]) {
    for value in values {
        let exit = route().arg(format!("--{flag}={value}")).exits().await;
        assert_refused(&exit, flag);
    }
}

#[tokio::test]
async fn a_bad_address_to_listen_on_is_refused() {
    let values = [
        "",
        "x",
        "127.0.0.1",
        ":8080",
        "127.0.0.1:",
        "127.0.0.1:99999",
        "127.0.0.1:-1",
        "http://127.0.0.1:8080",
        "127.0.0.1:8080 ",
        "300.0.0.1:8080",
    ];
    assert_values_refused("listen", &values).await;
}

const BAD_SIZES: [&str; 12] = [
    "",
    "x",
    "MiB",
    "-1",
    "+1",
    "1MB",
    "1mib",
    "1.5MiB",
    "1 MiB",
    "1MiB ",
    "99999999999999999999",
    "18446744073709551615GiB",
];

#[tokio::test]
async fn a_bad_size_is_refused() {
    assert_values_refused("max-request-body", &BAD_SIZES).await;
    assert_values_refused("max-response-body", &BAD_SIZES).await;
    assert_values_refused("max-response-body", &["4GiB", "4294967296"]).await;
}

#[tokio::test]
async fn a_bad_count_is_refused() {
    let values = [
        "",
        "x",
        "-1",
        "1.5",
        "1 ",
        "one",
        "65",
        "99999999999999999999",
    ];
    assert_values_refused("trusted-hops", &values).await;
}

#[tokio::test]
async fn a_bad_time_is_refused() {
    let values = [
        "",
        "x",
        "s",
        "2",
        "0",
        "0s",
        "0ms",
        "-1s",
        "+1s",
        "1.5s",
        "2 s",
        "2S",
        "2us",
        "99999999999999999999s",
        "18446744073709551615h",
    ];
    assert_values_refused("timeout", &values).await;
    let of_user: Vec<String> = values.iter().map(|value| format!("user={value}")).collect();
    let of_user: Vec<&str> = of_user.iter().map(String::as_str).collect();
    assert_values_refused("branch-timeout", &of_user).await;
    assert_values_refused("branch-timeout", &["", "1s", "=1s", "nobody=1s", "User=1s"]).await;
}

#[tokio::test]
async fn an_unknown_mode_or_policy_is_refused() {
    assert_values_refused("merge", &["", "x", "Group", "group,array", "quorum"]).await;
    assert_values_refused("conflict", &["", "x", "Last", "deep", "append"]).await;
}

/// What steers the connection is none of its business, nor is where a request comes from.
#[tokio::test]
async fn a_bad_name_of_a_field_is_refused() {
    let names = [
        "",
        "x y",
        "x:",
        "x-\u{e9}",
        "host",
        "content-length",
        "te",
        "X-Forwarded-For",
    ];
    assert_values_refused("deadline-field", &names).await;
}

#[cfg(not(feature = "decompression"))]
#[tokio::test]
async fn decoding_needs_its_feature() {
    let exit = route().flag("decompress", "user").exits().await;
    assert_refused(&exit, "decompress");
    assert!(exit.stderr.contains("needs the feature"), "{exit:?}");
}

#[tokio::test]
async fn an_unknown_branch_is_refused() {
    for flag in ["require", "credentials", "decompress"] {
        assert_values_refused(flag, &["", "nobody", "User", "user "]).await;
    }
    // Another route's branch is not known here.
    for (flag, value) in [
        ("require", "orders"),
        ("credentials", "orders"),
        ("branch-timeout", "orders=1s"),
    ] {
        let other = Run::new()
            .route("/other")
            .flag("branch", "orders=http://127.0.0.1:9/");
        let exit = other
            .route("/dash/{id}")
            .flag("branch", "user=http://127.0.0.1:9/");
        assert_refused(&exit.flag(flag, value).exits().await, flag);
        let exit = route().flag(flag, value).route("/other");
        let exit = exit.flag("branch", "orders=http://127.0.0.1:9/");
        assert_refused(&exit.exits().await, flag);
    }
}

#[tokio::test]
async fn a_bad_backend_is_refused() {
    let values = [
        "",
        "orders",
        "orders=",
        "=http://127.0.0.1:9/",
        "orders=/relative",
        "orders=127.0.0.1:9",
        "orders=ftp://127.0.0.1:9/",
        "orders=http://",
        "orders=http:///path",
        "orders=http://127.0.0.1:99999/",
        "orders=http://127.0.0.1:x/",
        "orders=http://user:password@127.0.0.1:9/",
        "orders=http://127.0.0.1:9/#fragment",
        "orders=http://127.0.0.1:9/../up",
        "orders=http://127.0.0.1:9/a b",
        "orders=http://127.0.0.1:9/%zz",
        "orders=http://127.0.0.1:9/é",
        // Placeholders: unknown, not closed, without a name, where none may stand.
        "orders=http://127.0.0.1:9/{nobody}",
        "orders=http://127.0.0.1:9/?user={ID}",
        "orders=http://127.0.0.1:9/{id",
        "orders=http://127.0.0.1:9/id}",
        "orders=http://127.0.0.1:9/{}",
        "orders=http://127.0.0.1:9/{i d}",
        "orders=http://{id}/",
        "orders=http://127.0.0.1:{id}/",
        "orders={id}://127.0.0.1/",
        // The name is taken.
        "user=http://127.0.0.1:9/",
    ];
    assert_values_refused("branch", &values).await;
    #[cfg(not(feature = "tls"))]
    assert_values_refused("branch", &["orders=https://127.0.0.1:9/"]).await;
}

#[tokio::test]
async fn a_bad_path_is_refused() {
    for path in [
        "",
        "dash",
        "{id}",
        "/{",
        "/}",
        "/{}",
        "/{id",
        "/{*}",
        "/{*rest}/x",
        "/{a}{b}",
    ] {
        let exit = Run::new()
            .arg(format!("--route={path}"))
            .flag("branch", "a=http://127.0.0.1:9/");
        assert_refused(&exit.exits().await, "route");
    }
    for (path, other) in [("/a", "/a"), ("/a/{id}", "/a/{name}"), ("/{*a}", "/{*b}")] {
        let exit = Run::new()
            .route(path)
            .flag("branch", "a=http://127.0.0.1:9/")
            .route(other)
            .flag("branch", "a=http://127.0.0.1:9/");
        assert_refused(&exit.exits().await, "route");
    }
}

/// `{{id}}` is how a route's path says a literal `{id}`: it has no such placeholder.
#[tokio::test]
async fn an_escaped_brace_is_no_placeholder() {
    let exit = Run::new()
        .route("/dash/{{id}}")
        .flag("branch", "user=http://127.0.0.1:9/users/{id}");
    assert_refused(&exit.exits().await, "branch");
}

#[tokio::test]
async fn a_route_needs_branches_and_has_64_at_most() {
    assert_refused(&Run::new().route("/dash").exits().await, "route");
    let exit = Run::new().route("/dash").route("/other");
    let exit = exit.flag("branch", "a=http://127.0.0.1:9/");
    assert_refused(&exit.exits().await, "route");
    assert_refused(&route().route("/other").exits().await, "route");

    let branches = |count: usize| {
        (0..count).fold(Run::new().route("/dash"), |run, index| {
            run.flag("branch", &format!("b{index}=http://127.0.0.1:9/"))
        })
    };
    assert_refused(&branches(65).exits().await, "route");
    branches(64).start().await;
}

#[tokio::test]
async fn the_first_success_can_not_require_a_branch() {
    for run in [
        route().flag("merge", "first").flag("require", "user"),
        route().flag("require", "user").flag("merge", "first"),
    ] {
        assert_refused(&run.exits().await, "require");
    }
}

#[tokio::test]
async fn what_is_said_once_is_refused_twice() {
    for (flag, value) in [
        ("listen", "127.0.0.1:0"),
        ("max-request-body", "1MiB"),
        ("trusted-hops", "1"),
        ("merge", "group"),
        ("timeout", "1s"),
        ("conflict", "last"),
        ("deadline-field", "x-wait-ms"),
        ("max-response-body", "1MiB"),
        ("branch-timeout", "user=1s"),
    ] {
        let exit = route().flag(flag, value).flag(flag, value).exits().await;
        assert_refused(&exit, flag);
    }
}

#[tokio::test]
async fn a_flag_of_a_route_needs_one_before_it() {
    for (flag, value) in [
        ("branch", "a=http://127.0.0.1:9/"),
        ("merge", "group"),
        ("timeout", "1s"),
        ("branch-timeout", "user=1s"),
        ("require", "user"),
        ("credentials", "user"),
        ("decompress", "user"),
        ("deadline-field", "x-wait-ms"),
        ("conflict", "last"),
        ("max-response-body", "1MiB"),
    ] {
        let exit = Run::new().flag(flag, value).exits().await;
        assert_refused(&exit, flag);
        let exit = Run::new().flag(flag, value).route("/dash");
        let exit = exit
            .flag("branch", "user=http://127.0.0.1:9/")
            .exits()
            .await;
        assert_refused(&exit, flag);
    }
}

#[tokio::test]
async fn a_flag_without_its_value_is_refused() {
    for flag in [
        "listen",
        "max-request-body",
        "trusted-hops",
        "route",
        "branch",
        "merge",
        "timeout",
        "branch-timeout",
        "require",
        "credentials",
        "decompress",
        "deadline-field",
        "conflict",
        "max-response-body",
    ] {
        let exit = route().arg(format!("--{flag}")).exits().await;
        assert_refused(&exit, flag);
        let exit = route().arg(format!("--{flag}")).flag("merge", "group");
        assert_refused(&exit.exits().await, flag);
    }
}

/// The value looks like a flag: it is the value that is bad, and the flag that is named.
#[tokio::test]
async fn a_value_with_a_dash_names_its_flag() {
    assert_refused(&route().flag("timeout", "-1s").exits().await, "timeout");
}

#[tokio::test]
async fn an_unknown_flag_is_refused() {
    for flag in ["nope", "routes", "Route", "listen-on"] {
        assert_refused(&route().flag(flag, "x").exits().await, flag);
        assert_refused(&route().arg(format!("--{flag}")).exits().await, flag);
    }
    for word in ["stray", "-x", "--", "-"] {
        let exit = route().arg(word).arg("stray").exits().await;
        assert_eq!(exit.code, Some(2), "{exit:?}");
        assert_eq!(exit.stdout, "");
        assert_eq!(exit.stderr.matches('\n').count(), 1, "{exit:?}");
    }
}

#[tokio::test]
async fn a_line_break_in_a_value_makes_no_second_line() {
    for (flag, value) in [
        ("listen", "x\ny"),
        ("max-request-body", "x\ny"),
        ("trusted-hops", "x\ny"),
        ("route", "x\ny"),
        ("route", "/{\n"),
        ("branch", "x\ny"),
        ("branch", "x=y\nz"),
        ("branch", "x\ny=http://127.0.0.1:9/{nobody}"),
        ("branch", "x=http://127.0.0.1:9/\n"),
        ("branch", "x=http://127.0.0.1:9/{a\nb}"),
        ("merge", "x\ny"),
        ("timeout", "x\ny"),
        ("branch-timeout", "x\ny=z"),
        ("require", "x\ny"),
        ("credentials", "x\ny"),
        ("conflict", "x\ny"),
        ("max-response-body", "x\ny"),
    ] {
        assert_refused(&route().flag(flag, value).exits().await, flag);
    }
    // Of two routes that can't stand side by side, the second names the first.
    let exit = Run::new()
        .route("/a\nb/{id}")
        .flag("branch", "a=http://127.0.0.1:9/")
        .route("/a\nb/{name}")
        .flag("branch", "a=http://127.0.0.1:9/");
    assert_refused(&exit.exits().await, "route");
}

#[tokio::test]
async fn a_value_that_is_not_unicode_is_refused() {
    for flag in ["listen", "route", "branch", "timeout", "require"] {
        let value = OsString::from_vec(b"\xff\xfe".to_vec());
        let exit = route().arg(format!("--{flag}")).arg(value).exits().await;
        assert_refused(&exit, flag);
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_said_so() {
    let taken = Backend::json("{}");
    let address = taken.address().to_string();
    let exit = route().flag("listen", &address).exits().await;
    assert!(exit.code.is_some_and(|code| code != 0), "{exit:?}");
    assert_eq!(exit.stdout, "");
    assert_eq!(exit.stderr.matches('\n').count(), 1, "{exit:?}");
    assert!(exit.stderr.contains("--listen"), "{exit:?}");
}

#[tokio::test]
async fn help_lists_every_flag_and_default() {
    let exit = Run::new().arg("--help").exits().await;
    assert_eq!((exit.code, &*exit.stderr), (Some(0), ""));
    let words: Vec<&str> = exit.stdout.split_whitespace().collect();
    let help = words.join(" ");
    for word in [
        "--listen",
        "--max-request-body",
        "--trusted-hops",
        "--route",
        "--branch",
        "--merge",
        "--timeout",
        "--branch-timeout",
        "--require",
        "--credentials",
        "--decompress",
        "--deadline-field",
        "--conflict",
        "--max-response-body",
        "default: 127.0.0.1:8080",
        "default: group",
        "default: last",
        "default: 2s",
        "default: 1MiB",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
}

#[tokio::test]
async fn every_unit_and_extreme_is_accepted() {
    let backend = Backend::json(r#"{"a":1}"#);
    let mut run = Run::new().flag("max-request-body", "18446744073709551615");
    for (index, time) in ["1ms", "1s", "1m", "1h", "18446744073709551615ms"]
        .iter()
        .enumerate()
    {
        run = run
            .route(&format!("/time{index}"))
            .branch("a", &backend, "/")
            .flag("timeout", time)
            .flag("branch-timeout", &format!("a={time}"));
    }
    for (index, size) in ["0", "0B", "1", "1B", "1KiB", "1MiB", "1GiB", "4294967295"]
        .iter()
        .enumerate()
    {
        for merge in ["group", "first"] {
            run = run
                .route(&format!("/size{index}/{merge}"))
                .branch("a", &backend, "/")
                .flag("merge", merge)
                .flag("max-response-body", size);
        }
    }
    let gateway = run.start().await;
    for path in ["/time2", "/time3", "/time4", "/size4/group", "/size7/group"] {
        gateway.get(path).await.complete(r#"{"a":{"a":1}}"#);
    }
    for path in ["/size4/first", "/size7/first"] {
        gateway.get(path).await.complete(r#"{"a":1}"#);
    }
    for path in [
        "/size0/group",
        "/size1/first",
        "/size2/group",
        "/size3/first",
    ] {
        gateway.get(path).await.merge_problem(502);
    }
}

#[tokio::test]
async fn a_flag_may_hold_its_value_with_an_equals_sign() {
    let backend = Backend::json(r#"{"a":1}"#);
    let gateway = Run::new()
        .arg("--route=/x/{id}")
        .arg(format!(
            "--branch=a=http://{}/?a=b&id={{id}}",
            backend.address()
        ))
        .arg("--merge=object")
        .start()
        .await;
    gateway.get("/x/7").await.complete(r#"{"a":1}"#);
    assert_eq!(backend.request().target, "/?a=b&id=7");
}

/// Each flag of a route takes effect on that route and on none of its neighbours, before it or after it.
#[tokio::test]
async fn flags_belong_to_the_nearest_route() {
    let (a, b) = (Backend::json(r#"{"k":1}"#), Backend::json(r#"{"k":2}"#));
    let (fails, hangs) = (
        Backend::answers(answer("503 Busy", &[], "")),
        Backend::hangs(),
    );
    let two = |run: Run, path: &str| run.route(path).branch("a", &a, "/").branch("b", &b, "/");
    let run = two(Run::new(), "/group");
    let run = two(run, "/object").flag("merge", "object");
    let run = two(run, "/array").flag("merge", "array");
    let run = two(run, "/default");
    let run = two(run, "/conflict/first")
        .flag("conflict", "first")
        .flag("merge", "object");
    let run = two(run, "/conflict/error")
        .flag("merge", "object")
        .flag("conflict", "error");
    let run = two(run, "/conflict/default").flag("merge", "object");
    let run = two(run, "/small").flag("max-response-body", "6");
    let run = two(run, "/large");
    let late = |run: Run, path: &str| {
        run.route(path)
            .branch("a", &a, "/")
            .branch("b", &hangs, "/")
    };
    let run = late(run, "/timeout").flag("timeout", "100ms");
    let run = late(run, "/branch-timeout")
        .flag("branch-timeout", "b=100ms")
        .flag("timeout", "1h");
    let bad = |run: Run, path: &str| {
        run.route(path)
            .branch("a", &a, "/")
            .branch("b", &fails, "/")
    };
    let run = bad(run, "/required").flag("require", "b");
    let run = bad(run, "/optional").flag("require", "a");
    let gateway = run.start().await;

    let group = r#"{"a":{"k":1},"b":{"k":2}}"#;
    gateway.get("/group").await.complete(group);
    gateway.get("/object").await.complete(r#"{"k":2}"#);
    gateway.get("/array").await.complete(r#"[{"k":1},{"k":2}]"#);
    gateway.get("/default").await.complete(group);
    gateway.get("/conflict/first").await.complete(r#"{"k":1}"#);
    gateway.get("/conflict/error").await.merge_problem(502);
    gateway
        .get("/conflict/default")
        .await
        .complete(r#"{"k":2}"#);
    gateway.get("/small").await.merge_problem(502);
    gateway.get("/large").await.complete(group);
    for path in ["/timeout", "/branch-timeout"] {
        let (answer, elapsed) = gateway.timed(path).await;
        answer.incomplete(r#"{"a":{"k":1}}"#);
        assert!(elapsed >= Duration::from_millis(100), "{elapsed:?}");
        assert!(elapsed < Duration::from_millis(100) + NOISE, "{elapsed:?}");
    }
    gateway.get("/required").await.merge_problem(502);
    gateway
        .get("/optional")
        .await
        .incomplete(r#"{"a":{"k":1}}"#);
}

/// Within a route the order is free, but for that of the branches.
#[tokio::test]
async fn a_name_may_be_used_before_its_branch() {
    let (a, missing) = (
        Backend::json("{}"),
        Backend::answers(answer("404 Not Found", &[], "")),
    );
    let hangs = Backend::hangs();
    let gateway = Run::new()
        .route("/x")
        .flag("require", "missing")
        .flag("credentials", "a")
        .branch("missing", &missing, "/")
        .branch("a", &a, "/")
        .route("/late")
        .flag("branch-timeout", "hangs=100ms")
        .flag("timeout", "1h")
        .branch("a", &a, "/")
        .branch("hangs", &hangs, "/")
        .start()
        .await;
    let answer = gateway
        .send(request("GET", "/x", &["Cookie: c=1"], ""))
        .await;
    answer.merge_problem(404);
    gateway.get("/late").await.incomplete(r#"{"a":{}}"#);
}

#[tokio::test]
async fn credentials_belong_to_the_nearest_route() {
    let (a, b) = (Backend::json("{}"), Backend::json("{}"));
    let gateway = Run::new()
        .route("/one")
        .branch("a", &a, "/one")
        .branch("b", &b, "/one")
        .flag("credentials", "a")
        .route("/two")
        .branch("a", &a, "/two")
        .branch("b", &b, "/two")
        .flag("credentials", "b")
        .start()
        .await;
    let fields = ["Authorization: Bearer t", "Cookie: c=1"];
    for path in ["/one", "/two"] {
        let answer = gateway.send(request("GET", path, &fields, "")).await;
        answer.complete(r#"{"a":{},"b":{}}"#);
    }
    for (backend, trusted) in [(&a, "/one"), (&b, "/two")] {
        for request in backend.requests() {
            let expected = (request.target == trusted).then_some(("Bearer t", "c=1"));
            let got = request.field("authorization").zip(request.field("cookie"));
            assert_eq!(got, expected, "{request:?}");
        }
    }
}

/// Several of a kind are as good as one.
#[tokio::test]
async fn names_may_be_listed() {
    let (a, b, c) = (
        Backend::json("{}"),
        Backend::json("{}"),
        Backend::answers(answer("404 Not Found", &[], "")),
    );
    let gateway = Run::new()
        .route("/x")
        .branch("a", &a, "/")
        .branch("b", &b, "/")
        .branch("c", &c, "/")
        .flag("require", "a")
        .flag("require", "c")
        .flag("credentials", "b")
        .flag("credentials", "c")
        .start()
        .await;
    let answer = gateway
        .send(request("GET", "/x", &["Cookie: c=1"], ""))
        .await;
    assert_eq!(answer.merge_problem(404)["branch"], "c");
    for (backend, cookie) in [(&b, Some("c=1")), (&c, Some("c=1"))] {
        let record = backend.until(|record| record.requests.len() == 1).await;
        assert_eq!(record.requests[0].field("cookie"), cookie);
    }
}

#[tokio::test]
async fn global_flags_stand_anywhere() {
    let backend = Backend::json("{}");
    let one = |run: Run| run.route("/one").branch("a", &backend, "/");
    let two = |run: Run| run.route("/two").branch("a", &backend, "/");
    let listen = |run: Run| run.flag("listen", "127.0.0.1:0");
    let limit = |run: Run| run.flag("max-request-body", "4");
    for run in [
        two(one(limit(listen(Run::new())))),
        two(listen(limit(one(Run::new())))),
        listen(two(limit(one(Run::new())))),
        limit(listen(two(one(Run::new())))),
    ] {
        let gateway = run.flag("timeout", "1m").start().await;
        assert_ne!(gateway.address.port(), 8080);
        for path in ["/one", "/two"] {
            gateway.post(path, "1234").await.complete(r#"{"a":{}}"#);
            gateway.post(path, "12345").await.problem(413);
        }
    }
}

#[tokio::test]
async fn the_default_address_is_8080_on_loopback() {
    // Whoever has it, the gateway can't, and says so.
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    let taken = async {
        loop {
            looks.tick().await;
            if let Ok(taken) = tokio::net::TcpListener::bind("127.0.0.1:8080").await {
                break taken;
            }
        }
    };
    let _taken = tokio::time::timeout(NOISE, taken).await;
    let exit = route().exits().await;
    assert!(exit.stderr.contains("--listen 127.0.0.1:8080"), "{exit:?}");
}

#[tokio::test]
async fn the_defaults_are_group_last_2s_and_1_mib() {
    let exact = format!("\"{}\"", "x".repeat((1 << 20) - 2));
    let over = format!("\"{}\"", "x".repeat((1 << 20) - 1));
    let size = Backend::replies(move |request| match &*request.target {
        "/exact" => json(&exact),
        _ => json(&over),
    });
    let (a, hangs, refuses) = (
        Backend::json(r#"{"k":1}"#),
        Backend::hangs(),
        Backend::refuses(),
    );
    let b = Backend::json(r#"{"k":2}"#);
    let gateway = Run::new()
        .route("/late")
        .branch("a", &a, "/")
        .branch("hangs", &hangs, "/")
        .route("/object")
        .branch("a", &a, "/")
        .branch("b", &b, "/")
        .flag("merge", "object")
        .route("/size/{which}")
        .branch("a", &size, "/{which}")
        .branch("refuses", &refuses, "/")
        .start()
        .await;

    let (answer, elapsed) = gateway.timed("/late").await;
    answer.incomplete(r#"{"a":{"k":1}}"#);
    assert!(elapsed >= Duration::from_secs(2), "{elapsed:?}");
    assert!(elapsed < Duration::from_secs(2) + NOISE, "{elapsed:?}");

    gateway.get("/object").await.complete(r#"{"k":2}"#);

    let answer = gateway.get("/size/exact").await;
    assert_eq!((answer.status, answer.body.len()), (200, (1 << 20) + 6));
    gateway.get("/size/over").await.merge_problem(502);

    let body = "x".repeat(1 << 20);
    let answer = gateway.post("/object", &body).await;
    answer.complete(r#"{"k":2}"#);
    gateway
        .post("/object", &format!("{body}x"))
        .await
        .problem(413);
}
