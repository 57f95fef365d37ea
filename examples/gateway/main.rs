//! A gateway: each route fans out to several backends and merges their answers.
//!
//! `cargo run --example gateway` starts demo backends and prints a line to try. With flags it fronts real ones; see
//! `cargo run --example gateway -- --help`. Copy this folder to start your own.

mod args;
mod demo;
mod server;

use std::convert::Infallible;
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::{Body, Bytes, Incoming};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder, ServiceExt};
use watershed::body::{BoxBody, Chunks};
use watershed::client::Client;
use watershed::clone_request::{CloneRequestLayer, TeeBody};
use watershed::deadline::{DeadlineLayer, EmitDeadlineLayer};
#[cfg(feature = "decompression")]
use watershed::decompression::DecompressionLayer;
use watershed::error::{BoxError, Problem};
use watershed::fanout::FanOut;
use watershed::merge::{FirstSuccess, JsonMerge, MergeLayer};
use watershed::outcome::{Branch, BranchError, BranchId};
use watershed::proxy_headers::{ProxyHeadersBody, ProxyHeadersLayer, TrustedHops};
use watershed::rewrite::{PathParams, RewriteLayer};
use watershed::timeout::ClientTimeoutLayer;

/// One route's stack, whatever it is made of.
type Route = BoxCloneSyncService<Inbound, Response<BoxBody>, Infallible>;

/// A request without the fields that concerned its connection only.
type Inbound = Request<ProxyHeadersBody<Incoming>>;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("the system has threads for us");
    let code = runtime.block_on(run());
    // Not even a name that is still being resolved may hold up the end.
    runtime.shutdown_background();
    code
}

async fn run() -> ExitCode {
    let args = match args::parse(std::env::args_os()) {
        // No route: something to try.
        Ok(args) if args.routes.is_empty() => demo::front(args).await,
        parsed => parsed,
    };
    let args = match args {
        Ok(args) => args,
        Err(error) => {
            eprintln!("gateway: {error}");
            return ExitCode::from(2);
        }
    };
    let client = Client::new();
    let mut routes = matchit::Router::new();
    for flags in args.routes {
        let path = flags.path.clone();
        let stack = route(flags, args.max_request_body, &client);
        routes.insert(path, stack).expect("checked with the flags");
    }
    let routes = Arc::new(routes);
    let gateway = ServiceBuilder::new()
        .layer(ProxyHeadersLayer::new().trusted_hops(TrustedHops::last(args.trusted_hops)))
        .service_fn(move |request| handle(Arc::clone(&routes), request));
    if let Err(error) = server::serve(args.listen, args.try_path, gateway).await {
        eprintln!("gateway: --listen {}: {error}", args.listen);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// The stack of one route: clone the request, run the branches, merge what they answer.
fn route(args: args::Route, max_request_body: u64, client: &Client<TeeBody>) -> Route {
    let deadline_field = args.deadline_field;
    let branches = args.branches.into_iter().map(|branch| {
        let timeout = ClientTimeoutLayer::new(branch.timeout.unwrap_or(Duration::MAX));
        let stack = ServiceBuilder::new().layer(timeout);
        let backend = ServiceBuilder::new()
            .option_layer(deadline_field.clone().map(EmitDeadlineLayer::millis))
            .layer(RewriteLayer::new(branch.backend))
            .service(client.clone());
        let mut http = match branch.decompress {
            // Whatever it decodes to, its budget is that of a plain answer.
            #[cfg(feature = "decompression")]
            true => {
                let decoded = DecompressionLayer::new().max_bytes(args.max_response_body as u64);
                Branch::http(branch.name, stack.layer(decoded).service(backend))
            }
            _ => Branch::http(branch.name, stack.service(backend)),
        };
        if branch.required {
            http = http.required();
        }
        if branch.credentials {
            http = http.credentials();
        }
        http
    });
    let path = args.path;
    let log = move |branch: &BranchId, error: &BranchError<BoxError>| log(&path, branch, error);
    let outer = ServiceBuilder::new()
        .option_layer(deadline_field.clone().map(DeadlineLayer::millis))
        .layer(CloneRequestLayer::new().limit(max_request_body));
    let fan_out = FanOut::new(branches);
    let json = match args.merge {
        args::Merge::Group => JsonMerge::group(),
        args::Merge::Object => JsonMerge::object().on_conflict(args.conflict),
        args::Merge::Array => JsonMerge::array(),
        args::Merge::First => {
            let first = FirstSuccess::new().collected(args.max_response_body);
            let merge = MergeLayer::new(first).within(args.timeout).on_failure(log);
            return erase(outer.layer(merge).service(fan_out));
        }
    };
    let merge = MergeLayer::new(json.max_bytes(args.max_response_body))
        .within(args.timeout)
        .on_failure(log);
    erase(outer.layer(merge).service(fan_out))
}

/// Says on standard error why a branch failed, in one line with all of its causes: a caller is told no more than its name.
/// A program whose log may be slow hands the line to a thread of its own: this runs in the middle of the merge.
fn log(route: &str, branch: &BranchId, error: &BranchError<BoxError>) {
    let mut line = format!("gateway: {route} {branch}: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = format!(": {error}");
        if !line.ends_with(&text) {
            line.push_str(&text);
        }
        cause = error.source();
    }
    // A cause may hold anything; it is told in one line nevertheless.
    line = line.replace(char::is_control, " ");
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// One type for the stacks of all merges.
fn erase<S, B>(stack: S) -> Route
where
    S: Service<Inbound, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    Route::new(stack.map_response(|answer: Response<B>| answer.map(BoxBody::new)))
}

/// Finds the route, leaves its parameters in the request, and calls its stack.
async fn handle(
    routes: Arc<matchit::Router<Route>>,
    mut request: Inbound,
) -> Result<Response<BoxBody>, Infallible> {
    let problem = |problem: Problem| {
        Ok(problem
            .into_response()
            .map(|body| BoxBody::new(Chunks::from(body))))
    };
    let fields = request
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4);
    if fields.sum::<usize>() + request.uri().to_string().len() > server::MAX_HEAD {
        return problem(Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }
    let Ok(found) = routes.at(request.uri().path()) else {
        return problem(Problem::new(StatusCode::NOT_FOUND));
    };
    let route = found.value.clone();
    match PathParams::decode(found.params.iter()) {
        Ok(params) => request.extensions_mut().insert(params),
        Err(fault) => return problem(fault.to_problem()),
    };
    route.oneshot(request).await
}
