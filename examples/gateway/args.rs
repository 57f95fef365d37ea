//! The gateway's flags. `--listen`, `--max-request-body` and `--trusted-hops` are global, wherever they stand; every other
//! flag belongs to the nearest `--route` before it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use clap::{Arg, ArgAction, Command};
use http::HeaderName;
use watershed::merge::Conflict;
use watershed::rewrite::UriTemplate;

#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) listen: SocketAddr,
    pub(crate) max_request_body: u64,
    pub(crate) trusted_hops: usize,
    pub(crate) routes: Vec<Route>,
    /// Something to try, if these are demo backends.
    pub(crate) try_path: Option<&'static str>,
}

#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) path: String,
    pub(crate) branches: Vec<Branch>,
    pub(crate) merge: Merge,
    pub(crate) timeout: Duration,
    pub(crate) conflict: Conflict,
    pub(crate) max_response_body: usize,
    pub(crate) deadline_field: Option<HeaderName>,
}

#[derive(Debug)]
pub(crate) struct Branch {
    pub(crate) name: String,
    pub(crate) backend: UriTemplate,
    pub(crate) timeout: Option<Duration>,
    pub(crate) required: bool,
    pub(crate) credentials: bool,
    pub(crate) decompress: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merge {
    Group,
    Object,
    Array,
    First,
}

/// What is wrong, in one line that names the flag.
#[derive(Debug)]
pub(crate) struct UsageError(String);

impl UsageError {
    pub(crate) fn new(why: impl fmt::Display) -> Self {
        Self(why.to_string())
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A value may hold anything; it is told in one line nevertheless.
        self.0.chars().try_for_each(|char| match char.is_control() {
            true => write!(f, "{}", char.escape_default()),
            false => write!(f, "{char}"),
        })
    }
}

fn wrong(flag: &str, value: &str, why: impl fmt::Display) -> UsageError {
    UsageError(format!("--{flag} {value:?}: {why}"))
}

/// Global flags, then those of a route: name, value, help.
const FLAGS: [(&str, &str, &str); 14] = [
    (
        "listen",
        "ADDR",
        "where to accept connections [default: 127.0.0.1:8080]",
    ),
    (
        "max-request-body",
        "SIZE",
        "the most bytes of a request's body [default: 1MiB]",
    ),
    (
        "trusted-hops",
        "COUNT",
        "how many proxies in front of this one are believed about the client [default: 0]",
    ),
    (
        "route",
        "PATH",
        "begins a route, such as /dash/{id}; the flags after it are its own",
    ),
    (
        "branch",
        "NAME=URL",
        "a backend, such as user=http://127.0.0.1:9001/users/{id}",
    ),
    (
        "merge",
        "MODE",
        "group, object, array or first [default: group]",
    ),
    (
        "timeout",
        "TIME",
        "when the gather ends; a late branch costs its own part [default: 2s]",
    ),
    ("branch-timeout", "NAME=TIME", "a limit for one branch"),
    ("require", "NAME", "without this branch there is no answer"),
    (
        "credentials",
        "NAME",
        "this branch gets the caller's Authorization and Cookie",
    ),
    (
        "decompress",
        "NAME",
        "this branch may answer in gzip or deflate (needs the feature decompression)",
    ),
    (
        "deadline-field",
        "FIELD",
        "where the caller says how many milliseconds it waits, and each backend is told what is left",
    ),
    (
        "conflict",
        "WHO",
        "whose value stands if two give a key: first, last or error [default: last]",
    ),
    (
        "max-response-body",
        "SIZE",
        "the most bytes of a branch's answer [default: 1MiB]",
    ),
];

fn command() -> Command {
    let flags = FLAGS.map(|(name, value, help)| {
        Arg::new(name)
            .long(name)
            .value_name(value)
            .help(help)
            .action(ArgAction::Append)
    });
    Command::new("gateway")
        .about("Fronts several backends with one route. Without --route it starts demo backends.")
        .version(env!("CARGO_PKG_VERSION"))
        .args(flags)
}

/// Parses a command line, the program's name first.
pub(crate) fn parse<T>(line: impl IntoIterator<Item = T>) -> Result<Args, UsageError>
where
    T: Into<OsString>,
{
    let line = words(line.into_iter().map(Into::into))?;
    let matches = command().try_get_matches_from(line).map_err(|error| {
        if !error.use_stderr() {
            error.exit(); // --help, --version
        }
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        UsageError(first.trim_start_matches("error: ").to_owned())
    })?;
    // Where a flag stands decides which route it belongs to.
    let mut flags = BTreeMap::new();
    for (name, ..) in FLAGS {
        let values = matches.get_many::<String>(name).unwrap_or_default();
        let places = matches.indices_of(name).unwrap_or_default();
        flags.extend(places.zip(values.map(|value| (name, value.as_str()))));
    }

    let mut listen = Once::new("listen");
    let mut max_request_body = Once::new("max-request-body");
    let mut trusted_hops = Once::new("trusted-hops");
    let mut routes: Vec<RouteFlags<'_>> = Vec::new();
    for (flag, value) in flags.into_values() {
        match (flag, routes.last_mut()) {
            ("listen", _) => listen.set(
                value,
                value.parse().map_err(|error| wrong(flag, value, error)),
            )?,
            ("max-request-body", _) => max_request_body.set(value, size(flag, value))?,
            ("trusted-hops", _) => trusted_hops.set(value, hops(flag, value))?,
            ("route", _) => routes.push(RouteFlags::new(value)),
            (_, Some(route)) => route.flag(flag, value)?,
            (_, None) => return Err(wrong(flag, value, "there is no --route before it")),
        }
    }
    let mut paths = matchit::Router::new();
    for route in &routes {
        if !route.path.starts_with('/') {
            return Err(wrong("route", route.path, "a path starts with /"));
        }
        paths
            .insert(route.path, ())
            .map_err(|error| wrong("route", route.path, error))?;
    }
    Ok(Args {
        listen: listen
            .value
            .unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8080))),
        max_request_body: max_request_body.value.unwrap_or(1 << 20),
        trusted_hops: trusted_hops.value.unwrap_or(0),
        routes: routes
            .into_iter()
            .map(RouteFlags::check)
            .collect::<Result<_, _>>()?,
        try_path: None,
    })
}

fn hops(flag: &str, value: &str) -> Result<usize, UsageError> {
    match value.parse() {
        Ok(hops) if hops <= 64 => Ok(hops),
        Ok(_) => Err(wrong(flag, value, "at most 64 are believed")),
        Err(error) => Err(wrong(flag, value, error)),
    }
}

/// The words of the command line. A value that begins with a dash is joined to its flag, so that it is read as a value.
fn words(line: impl Iterator<Item = OsString>) -> Result<Vec<String>, UsageError> {
    let mut words: Vec<String> = Vec::new();
    for word in line {
        let last = words.last_mut();
        let word = word.into_string().map_err(|word| {
            let word = word.to_string_lossy();
            let flag = last
                .as_deref()
                .map_or(&*word, |last| match word.starts_with("--") {
                    true => &*word,
                    false => last,
                });
            UsageError(format!("{flag}: the value is not Unicode"))
        })?;
        let dashed = word.starts_with('-') && !word.starts_with("--") && word.len() > 1;
        match words.last_mut() {
            Some(flag)
                if dashed
                    && FLAGS
                        .iter()
                        .any(|(name, ..)| flag.strip_prefix("--") == Some(name)) =>
            {
                *flag = format!("{flag}={word}");
            }
            _ => words.push(word),
        }
    }
    Ok(words)
}

/// A flag that may be given once.
struct Once<T> {
    flag: &'static str,
    value: Option<T>,
}

impl<T> Once<T> {
    fn new(flag: &'static str) -> Self {
        Self { flag, value: None }
    }

    fn set(&mut self, text: &str, value: Result<T, UsageError>) -> Result<(), UsageError> {
        match self.value.replace(value?) {
            None => Ok(()),
            Some(_) => Err(wrong(self.flag, text, "it is given twice")),
        }
    }
}

/// The flags of one route, before they are held against each other.
struct RouteFlags<'a> {
    path: &'a str,
    branches: Vec<(&'a str, &'a str)>,
    branch_timeouts: Vec<(&'a str, Duration)>,
    required: Vec<&'a str>,
    credentials: Vec<&'a str>,
    decompress: Vec<&'a str>,
    deadline_field: Once<HeaderName>,
    merge: Once<Merge>,
    timeout: Once<Duration>,
    conflict: Once<Conflict>,
    max_response_body: Once<u64>,
}

impl<'a> RouteFlags<'a> {
    fn new(path: &'a str) -> Self {
        Self {
            path,
            branches: Vec::new(),
            branch_timeouts: Vec::new(),
            required: Vec::new(),
            credentials: Vec::new(),
            decompress: Vec::new(),
            deadline_field: Once::new("deadline-field"),
            merge: Once::new("merge"),
            timeout: Once::new("timeout"),
            conflict: Once::new("conflict"),
            max_response_body: Once::new("max-response-body"),
        }
    }

    fn flag(&mut self, flag: &str, value: &'a str) -> Result<(), UsageError> {
        let named = || match value.split_once('=') {
            Some((name, rest)) if !name.is_empty() => Ok((name, rest)),
            _ => Err(wrong(flag, value, "it is not NAME=VALUE")),
        };
        match flag {
            "branch" => {
                let (name, url) = named()?;
                if self.branches.iter().any(|(known, _)| *known == name) {
                    return Err(wrong(flag, value, "two branches have this name"));
                }
                self.branches.push((name, url));
            }
            "branch-timeout" => {
                let (name, time) = named()?;
                if self.branch_timeouts.iter().any(|(known, _)| *known == name) {
                    return Err(wrong(flag, value, "it is given twice"));
                }
                let time = duration(time).ok_or_else(|| wrong(flag, value, NOT_A_TIME))?;
                self.branch_timeouts.push((name, time));
            }
            "require" => self.required.push(value),
            "credentials" => self.credentials.push(value),
            "decompress" if !cfg!(feature = "decompression") => {
                return Err(wrong(flag, value, "it needs the feature decompression"));
            }
            "decompress" => self.decompress.push(value),
            "deadline-field" => {
                let name = value.parse().map_err(|error| wrong(flag, value, error));
                let name = name.and_then(|name: HeaderName| {
                    // Neither `Content-Length`, for one, nor what says where a request comes from.
                    let text = name.as_str();
                    if text.starts_with("x-") && !text.starts_with("x-forwarded-") {
                        Ok(name)
                    } else {
                        let why = "its name has to begin with x-, and not with x-forwarded-";
                        Err(wrong(flag, value, why))
                    }
                });
                self.deadline_field.set(value, name)?;
            }
            "merge" => self.merge.set(
                value,
                match value {
                    "group" => Ok(Merge::Group),
                    "object" => Ok(Merge::Object),
                    "array" => Ok(Merge::Array),
                    "first" => Ok(Merge::First),
                    _ => Err(wrong(
                        flag,
                        value,
                        "it is none of group, object, array, first",
                    )),
                },
            )?,
            "timeout" => {
                let time = duration(value).ok_or_else(|| wrong(flag, value, NOT_A_TIME));
                self.timeout.set(value, time)?;
            }
            "conflict" => self.conflict.set(
                value,
                match value {
                    "first" => Ok(Conflict::First),
                    "last" => Ok(Conflict::Last),
                    "error" => Ok(Conflict::Error),
                    _ => Err(wrong(flag, value, "it is none of first, last, error")),
                },
            )?,
            "max-response-body" => {
                let bytes = size(flag, value).and_then(|bytes| match u32::try_from(bytes) {
                    Ok(_) => Ok(bytes),
                    Err(_) => Err(wrong(flag, value, "it has to be less than 4GiB")),
                });
                self.max_response_body.set(value, bytes)?;
            }
            _ => unreachable!("every flag of a route is listed here"),
        }
        Ok(())
    }

    fn check(self) -> Result<Route, UsageError> {
        let known = |name: &str| self.branches.iter().any(|(branch, _)| *branch == name);
        let timed = self
            .branch_timeouts
            .iter()
            .map(|(name, _)| ("branch-timeout", *name));
        let required = self.required.iter().map(|name| ("require", *name));
        let trusted = self.credentials.iter().map(|name| ("credentials", *name));
        let decoded = self.decompress.iter().map(|name| ("decompress", *name));
        for (flag, name) in timed.chain(required).chain(trusted).chain(decoded) {
            if !known(name) {
                return Err(wrong(
                    flag,
                    name,
                    format_args!("the route {:?} has no such branch", self.path),
                ));
            }
        }
        if self.branches.is_empty() {
            return Err(wrong("route", self.path, "it has no --branch"));
        }
        if self.branches.len() > 64 {
            return Err(wrong("route", self.path, "it has more than 64 branches"));
        }
        let merge = self.merge.value.unwrap_or(Merge::Group);
        if let (Merge::First, Some(name)) = (merge, self.required.first()) {
            return Err(wrong(
                "require",
                name,
                "with --merge first, any branch will do",
            ));
        }
        let branches = self.branches.iter().map(|(name, url)| {
            Ok(Branch {
                name: (*name).to_owned(),
                backend: self.backend(&format!("{name}={url}"), url)?,
                timeout: self
                    .branch_timeouts
                    .iter()
                    .find_map(|(branch, time)| (branch == name).then_some(*time)),
                required: self.required.contains(name),
                credentials: self.credentials.contains(name),
                decompress: self.decompress.contains(name),
            })
        });
        Ok(Route {
            branches: branches.collect::<Result<_, _>>()?,
            path: self.path.to_owned(),
            merge,
            timeout: self.timeout.value.unwrap_or(Duration::from_secs(2)),
            conflict: self.conflict.value.unwrap_or_default(),
            max_response_body: self.max_response_body.value.unwrap_or(1 << 20) as usize,
            deadline_field: self.deadline_field.value,
        })
    }

    fn backend(&self, value: &str, url: &str) -> Result<UriTemplate, UsageError> {
        let backend = UriTemplate::try_new(url).map_err(|error| wrong("branch", value, error))?;
        match backend.scheme().map(|scheme| scheme.as_str()) {
            None => return Err(wrong("branch", value, "the URL is not absolute")),
            Some("https") if !cfg!(feature = "tls") => {
                return Err(wrong("branch", value, "https needs the feature tls"));
            }
            Some(_) => {}
        }
        let in_path = |name: &str| params(self.path).contains(&name);
        if let Some(name) = backend.names().find(|name| !in_path(name)) {
            return Err(wrong(
                "branch",
                value,
                format_args!("the route has no {{{name}}}"),
            ));
        }
        Ok(backend)
    }
}

/// The parameters of a route's path: `{id}`, or `{*rest}` for the rest of it. `{{` and `}}` are braces that stand for
/// themselves.
fn params(path: &str) -> Vec<&str> {
    let mut params = Vec::new();
    let mut rest = path;
    while let Some(open) = rest.find('{') {
        rest = &rest[open + 1..];
        if let Some(after) = rest.strip_prefix('{') {
            rest = after;
        } else if let Some(close) = rest.find('}') {
            params.push(rest[..close].trim_start_matches('*'));
            rest = &rest[close + 1..];
        }
    }
    params
}

const NOT_A_TIME: &str = "it is not a time such as 500ms or 2s, above zero";

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let time = Duration::from_millis(number.checked_mul(milliseconds)?);
    (!time.is_zero()).then_some(time)
}

fn size(flag: &str, text: &str) -> Result<u64, UsageError> {
    let bytes = split_unit(text).and_then(|(number, unit)| {
        let unit = match unit {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        number.checked_mul(unit)
    });
    bytes.ok_or_else(|| wrong(flag, text, "it is not a size such as 64KiB or 1MiB"))
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit))
}
