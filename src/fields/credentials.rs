//! Who the caller is: laid aside for the branches that may know.

use http::header::{self, HeaderName, HeaderValue};
use http::{Extensions, HeaderMap};

/// The caller's credentials.
const CREDENTIALS: [HeaderName; 2] = [header::AUTHORIZATION, header::COOKIE];

/// The credentials that a merge has taken from a request, as an extension of it: a branch gets them back only if it is said
/// to be one that may see them.
#[derive(Debug, Clone)]
pub(crate) struct Withheld(Vec<(HeaderName, HeaderValue)>);

/// Takes the credentials out of a request's head and lays them aside in its extensions.
pub(crate) fn withhold(headers: &mut HeaderMap, extensions: &mut Extensions) {
    // What a merge outside has laid aside was not meant for this one.
    extensions.remove::<Withheld>();
    let mut taken = Vec::new();
    for name in CREDENTIALS {
        if let header::Entry::Occupied(field) = headers.entry(&name) {
            let (name, values) = field.remove_entry_mult();
            taken.extend(values.map(|value| (name.clone(), value)));
        }
    }
    if !taken.is_empty() {
        extensions.insert(Withheld(taken));
    }
}

/// Puts what was laid aside back; but a field that a layer of ours has set in between stands alone.
pub(crate) fn restore(headers: &mut HeaderMap, extensions: &mut Extensions) {
    if let Some(Withheld(fields)) = extensions.remove() {
        let ours = CREDENTIALS.map(|name| headers.contains_key(&name).then_some(name));
        for (name, value) in fields {
            if !ours.iter().flatten().any(|ours| *ours == name) {
                headers.append(name, value);
            }
        }
    }
}

/// Drops the credentials, laid aside or not.
pub(crate) fn drop_credentials(headers: &mut HeaderMap, extensions: &mut Extensions) {
    extensions.remove::<Withheld>();
    for name in CREDENTIALS {
        headers.remove(name);
    }
}
