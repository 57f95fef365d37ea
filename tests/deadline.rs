//! What the deadline layers promise: a caller's limit is read or ignored, never made longer, and what travels on is what is
//! left.

mod support;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::Empty;
use support::{Answer, MS};
use tokio::time::{advance, sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use watershed::clone_request::CloneRequestLayer;
use watershed::deadline::{Deadline, DeadlineLayer, EmitDeadlineLayer};
use watershed::fanout::FanOut;
use watershed::merge::{JsonMerge, MergeLayer};
use watershed::outcome::Branch;
use watershed::test_util::{Reply, Scripted};
use watershed::timeout::ClientTimeoutLayer;

const WAIT: HeaderName = HeaderName::from_static("x-wait-ms");
const LEFT: HeaderName = HeaderName::from_static("x-left-ms");

fn millis() -> DeadlineLayer {
    DeadlineLayer::millis(WAIT)
}

/// What the service inside is told, and the fields that its request has.
async fn announced<L>(layer: &L, request: Request<()>) -> (Option<Duration>, HeaderMap)
where
    L: Layer<Inside>,
    L::Service: Service<Request<()>, Response = Request<()>, Error = Infallible>,
{
    let Ok(request) = layer.layer(Inside).oneshot(request).await;
    let deadline: Option<&Deadline> = request.extensions().get();
    (deadline.map(Deadline::remaining), request.headers().clone())
}

/// Returns its request.
#[derive(Clone)]
struct Inside;

impl Service<Request<()>> for Inside {
    type Response = Request<()>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Request<()>, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        std::future::ready(Ok(request))
    }
}

fn saying(name: &HeaderName, values: &[&[u8]]) -> Request<()> {
    let mut request = Request::new(());
    for value in values {
        let value = HeaderValue::from_bytes(value).expect("a value");
        request.headers_mut().append(name, value);
    }
    request
}

const GRPC: HeaderName = HeaderName::from_static("grpc-timeout");

#[tokio::test(start_paused = true)]
async fn what_a_caller_says_is_announced_and_not_enforced() {
    for (layer, name, value, expected) in [
        (
            DeadlineLayer::grpc(),
            &GRPC,
            "3H",
            Duration::from_secs(3 * 3600),
        ),
        (DeadlineLayer::grpc(), &GRPC, "3M", Duration::from_secs(180)),
        (DeadlineLayer::grpc(), &GRPC, "3S", Duration::from_secs(3)),
        (DeadlineLayer::grpc(), &GRPC, "3m", Duration::from_millis(3)),
        (DeadlineLayer::grpc(), &GRPC, "3u", Duration::from_micros(3)),
        (DeadlineLayer::grpc(), &GRPC, "3n", Duration::from_nanos(3)),
        (DeadlineLayer::grpc(), &GRPC, "00000250m", 250 * MS),
        (
            DeadlineLayer::grpc(),
            &GRPC,
            "99999999S",
            Duration::from_secs(99_999_999),
        ),
        (DeadlineLayer::grpc(), &GRPC, "0n", Duration::ZERO),
        (millis(), &WAIT, "250", 250 * MS),
        (millis(), &WAIT, "0000000000000000000000250", 250 * MS),
        (millis(), &WAIT, "0", Duration::ZERO),
    ] {
        for inherited in [
            None,
            Some(Deadline::NEVER),
            Some(Deadline::NEVER.enforced()),
        ] {
            let mut request = saying(name, &[value.as_bytes()]);
            if let Some(inherited) = inherited {
                request.extensions_mut().insert(inherited);
            }
            let Ok(request) = layer.layer(Inside).oneshot(request).await;
            let deadline: &Deadline = request.extensions().get().expect("announced");
            assert_eq!(
                (deadline.remaining(), deadline.is_enforced()),
                (expected, false),
                "{value}"
            );
            // It is said once, and not passed on as it was.
            assert!(request.headers().is_empty());
        }
    }
}

/// Whatever can't be read, and what is said twice, is as good as absent.
#[tokio::test(start_paused = true)]
async fn what_can_not_be_read_counts_for_nothing_and_makes_no_deadline_longer() {
    let bad: [&[&[u8]]; 16] = [
        &[b""],
        &[b"S"],
        &[b"1"],
        &[b"1s"],
        &[b"-1S"],
        &[b"+1S"],
        &[b"1.5S"],
        &[b"1 S"],
        &[b" 1S"],
        &[b"1S "],
        &[b"0x1S"],
        &[b"123456789S"],
        &[b"1S,2S"],
        &[b"1S", b"1S"],
        &[b"\xd9\xa1S"],
        &[b"1\xff"],
    ];
    let bad_millis: [&[&[u8]]; 12] = [
        &[b""],
        &[b"-1"],
        &[b"+1"],
        &[b"1.5"],
        &[b"1 "],
        &[b"1ms"],
        &[b"1e3"],
        &[b"18446744073709551616"],
        &[b"99999999999999999999999999"],
        &[b"1,2"],
        &[b"1", b"2"],
        &[b"\xd9\xa1"],
    ];
    let cases = bad.map(|values| (DeadlineLayer::grpc(), GRPC, values));
    let millis = bad_millis.map(|values| (millis(), WAIT, values));
    for (layer, name, values) in cases.into_iter().chain(millis) {
        let ask = || saying(&name, values);
        // No deadline, the default, the cap, the earlier of the two.
        for (layer, expected) in [
            (layer.clone(), None),
            (layer.clone().when_absent(2 * MS), Some(2 * MS)),
            (layer.clone().max(3 * MS), Some(3 * MS)),
            (layer.clone().max(2 * MS).when_absent(3 * MS), Some(2 * MS)),
        ] {
            let (left, headers) = announced(&layer, ask()).await;
            assert_eq!((left, headers.len()), (expected, 0), "{values:?}");
        }
        // What was announced or enforced before stands.
        for before in [Deadline::after(MS), Deadline::after(MS).enforced()] {
            let mut request = ask();
            request.extensions_mut().insert(before);
            let layer = layer.clone().when_absent(2 * MS);
            let Ok(request) = layer.layer(Inside).oneshot(request).await;
            assert_eq!(request.extensions().get(), Some(&before));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_largest_number_overflows_nothing_and_is_capped() {
    let largest = || saying(&WAIT, &[b"18446744073709551615"]);
    assert_eq!(
        announced(&millis().max(5 * MS), largest()).await.0,
        Some(5 * MS)
    );
    // As it is, or never, if that is more than the clock can hold.
    let left = announced(&millis(), largest()).await.0;
    assert!(left.is_none_or(|left| left == Duration::from_millis(u64::MAX)));
}

#[tokio::test(start_paused = true)]
async fn a_cap_holds_whatever_the_caller_says_and_if_it_says_nothing() {
    let layer = millis().max(100 * MS).when_absent(50 * MS);
    for (said, expected) in [(Some("20"), 20), (Some("500"), 100), (None, 50)] {
        let request = match said {
            Some(value) => saying(&WAIT, &[value.as_bytes()]),
            None => Request::new(()),
        };
        assert_eq!(announced(&layer, request).await.0, Some(MS * expected));
    }
    assert_eq!(
        announced(&millis().max(MS), Request::new(())).await.0,
        Some(MS)
    );
    assert_eq!(announced(&millis(), Request::new(())).await.0, None);

    let tried = millis().try_max(100 * MS).expect("not zero");
    let tried = tried.try_when_absent(50 * MS).expect("not zero");
    assert_eq!(announced(&tried, Request::new(())).await.0, Some(50 * MS));
    for (tried, panics) in [
        (
            millis().try_max(Duration::ZERO),
            std::panic::catch_unwind(|| millis().max(Duration::ZERO)),
        ),
        (
            millis().try_when_absent(Duration::ZERO),
            std::panic::catch_unwind(|| millis().when_absent(Duration::ZERO)),
        ),
    ] {
        let error = tried.expect_err("refused");
        let panic = panics.expect_err("refused");
        assert_eq!(panic.downcast_ref(), Some(&error.to_string()));
    }
}

#[tokio::test(start_paused = true)]
async fn an_inherited_deadline_is_made_earlier_and_never_later() {
    for inherited in [
        Deadline::after(100 * MS),
        Deadline::after(100 * MS).enforced(),
    ] {
        for (said, expected) in [
            ("40", Deadline::after(40 * MS)),
            ("100", inherited),
            ("400", inherited),
        ] {
            let mut request = saying(&WAIT, &[said.as_bytes()]);
            request.extensions_mut().insert(inherited);
            let Ok(request) = millis().layer(Inside).oneshot(request).await;
            assert_eq!(request.extensions().get(), Some(&expected), "{said}");
        }
    }
}

/// What the emitting layer writes for a request with this deadline, over what is there.
async fn emitted(
    layer: &EmitDeadlineLayer,
    name: &HeaderName,
    deadline: Option<Deadline>,
) -> Vec<String> {
    let mut request = saying(name, &[b"99999999H", b"stale"]);
    if let Some(deadline) = deadline {
        request.extensions_mut().insert(deadline);
    }
    let Ok(request) = layer.layer(Inside).oneshot(request).await;
    let lines = request.headers().get_all(name).iter();
    lines
        .map(|line| line.to_str().expect("ASCII").to_owned())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_left_is_written_rounded_down_in_the_finest_unit_that_fits() {
    let grpc = EmitDeadlineLayer::grpc();
    for (left, expected) in [
        (Duration::from_nanos(99_999_999), "99999999n"),
        (Duration::from_nanos(100_000_999), "100000u"),
        (Duration::from_micros(99_999_999), "99999999u"),
        (Duration::from_nanos(100_000_000_999), "100000m"),
        (Duration::from_millis(99_999_999), "99999999m"),
        (Duration::from_micros(100_000_000_999), "100000S"),
        (Duration::from_secs(99_999_999), "99999999S"),
        (Duration::from_secs(100_000_019), "1666666M"),
        (Duration::from_secs(99_999_999 * 60 + 59), "99999999M"),
        (Duration::from_secs(100_000_000 * 60 + 59), "1666666H"),
    ] {
        let written = emitted(&grpc, &GRPC, Some(Deadline::after(left))).await;
        assert_eq!(written, [expected], "{left:?}");
    }
    let millis = EmitDeadlineLayer::millis(WAIT);
    for (left, expected) in [
        (Duration::from_micros(250_999), "250"),
        (Duration::from_secs(99_999_999), "99999999000"),
    ] {
        let written = emitted(&millis, &WAIT, Some(Deadline::after(left).enforced())).await;
        assert_eq!(written, [expected]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_margin_is_kept_back_and_nothing_left_is_nought() {
    for (layer, name, nought) in [
        (EmitDeadlineLayer::grpc(), GRPC, "0n"),
        (EmitDeadlineLayer::millis(WAIT), WAIT, "0"),
    ] {
        let layer = layer.margin(20 * MS);
        let read = match name == GRPC {
            true => DeadlineLayer::grpc(),
            false => millis(),
        };
        for left in [0, 10, 20] {
            let deadline = Deadline::after(MS * left);
            assert_eq!(emitted(&layer, &name, Some(deadline)).await, [nought]);
            // Whoever reads that has no time.
            let request = saying(&name, &[nought.as_bytes()]);
            assert_eq!(announced(&read, request).await.0, Some(Duration::ZERO));
        }
        let past = Deadline::after(MS);
        advance(5 * MS).await;
        assert_eq!(emitted(&layer, &name, Some(past)).await, [nought]);
        let written = emitted(&layer, &name, Some(Deadline::after(50 * MS))).await;
        let request = saying(&name, &[written[0].as_bytes()]);
        assert_eq!(announced(&read, request).await.0, Some(30 * MS));
        // Without a deadline there is nothing to say, and nothing stale is left.
        for none in [None, Some(Deadline::NEVER)] {
            assert!(emitted(&layer, &name, none).await.is_empty());
        }
    }
}

/// In at the edge, through the layers, and out to each backend: less each time.
#[tokio::test(start_paused = true)]
async fn a_deadline_travels_from_the_edge_to_the_backend() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    let backend = service_fn(move |request: Request<()>| {
        let said = request.headers()[GRPC].to_str().expect("ASCII").to_owned();
        hears.lock().expect("not poisoned").push(said);
        async { Ok::<_, Infallible>(Response::new(http_body_util::Empty::<bytes::Bytes>::new())) }
    });
    for own in [40, 400] {
        let slow = ServiceBuilder::new()
            .layer(EmitDeadlineLayer::grpc().margin(5 * MS))
            .service(backend.clone());
        let stack = ServiceBuilder::new()
            .layer(millis().max(Duration::from_secs(5)))
            .layer(ClientTimeoutLayer::new(MS * own))
            .service(service_fn(move |request: Request<()>| {
                let slow = slow.clone();
                async move {
                    sleep(10 * MS).await;
                    slow.oneshot(request).await
                }
            }));
        stack
            .oneshot(saying(&WAIT, &[b"100"]))
            .await
            .expect("in time");
    }
    assert_eq!(
        *heard.lock().expect("not poisoned"),
        ["25000000n", "85000000n"]
    );
}

/// Each branch of a fan-out tells its backend what is left, less its own margin, in its own form.
#[tokio::test(start_paused = true)]
async fn every_branch_says_what_is_left_less_its_margin() {
    let branches = [
        ("near", EmitDeadlineLayer::grpc()),
        ("far", EmitDeadlineLayer::grpc().margin(20 * MS)),
        ("other", EmitDeadlineLayer::millis(LEFT).margin(50 * MS)),
    ];
    let backends = branches
        .each_ref()
        .map(|_| Scripted::reply(Reply::json("1")));
    let branches = branches.into_iter().zip(&backends);
    let fan_out = FanOut::new(branches.map(|((name, emit), backend)| {
        let emits = emit.layer(backend.clone());
        // The wait on the way to the backend counts.
        let waits = service_fn(move |request| {
            let emits = emits.clone();
            async move {
                sleep(10 * MS).await;
                emits.oneshot(request).await
            }
        });
        Branch::http(name, waits)
    }));
    let stack = ServiceBuilder::new()
        .layer(millis().max(Duration::from_secs(5)))
        .layer(CloneRequestLayer::new())
        .layer(MergeLayer::new(JsonMerge::group()))
        .service(fan_out);
    let request = Request::get("/").header(WAIT, "300");
    let request = request.body(Empty::<Bytes>::new()).expect("a request");
    let answer = Answer::read(stack.oneshot(request).await.expect("an answer")).await;
    answer.assert_document(r#"{"near":1,"far":1,"other":1}"#, true);
    for (backend, grpc, left) in [
        (&backends[0], Some("290000u"), None),
        (&backends[1], Some("270000u"), None),
        (&backends[2], None, Some("240")),
    ] {
        let [call] = &backend.calls()[..] else {
            panic!("called once");
        };
        for (name, said) in [(GRPC, grpc), (LEFT, left), (WAIT, None)] {
            let lines: Vec<_> = call.headers.get_all(&name).iter().collect();
            assert_eq!(lines, Vec::from_iter(said), "{name}");
        }
    }
}
