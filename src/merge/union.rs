//! The union of several objects' members.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::ops::Range;

use super::Conflict;
use super::splice::{Source, Splice};
use crate::error::write_json_str;
use crate::json::{Member, Value, members, unescape};

/// Two branches gave the same key, and the policy is [`Conflict::Error`]: their places among the parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clash {
    pub(super) first: usize,
    pub(super) second: usize,
}

/// How many levels of objects [`Conflict::Deep`] unites.
const DEEP_LEVELS: usize = 8;

/// The union under construction. Members are added in declared order; a key keeps the place of the member that wins.
#[derive(Debug)]
pub(super) struct Union<'a> {
    sources: &'a [Source],
    policy: Conflict,
    /// How many levels of objects may still be united below this one. Each has to be read again, so they are few.
    levels: usize,
    entries: Vec<Entry<'a>>,
    by_name: HashMap<Cow<'a, [u8]>, usize>,
}

#[derive(Debug)]
struct Entry<'a> {
    source: usize,
    name: Name<'a>,
    value: Value,
    /// Cleared when another member takes its key.
    live: bool,
    /// With [`Conflict::Deep`]: the entry whose value this one is laid over.
    under: Option<usize>,
}

#[derive(Debug)]
enum Name<'a> {
    /// As it stands in the source: the member can be moved as a whole.
    InPlace(Member),
    /// Given by us.
    Given(&'a str),
}

impl<'a> Union<'a> {
    pub(super) fn new(sources: &'a [Source], policy: Conflict, capacity: usize) -> Self {
        Self {
            sources,
            policy,
            levels: DEEP_LEVELS,
            entries: Vec::with_capacity(capacity),
            by_name: HashMap::with_capacity(capacity),
        }
    }

    /// Adds the members of an object of `source`.
    pub(super) fn members(&mut self, source: usize, members: &[Member]) -> Result<(), Clash> {
        for member in members {
            let text: &'a [u8] = &self.sources[source].bytes;
            let name = unescape(&text[member.name().start + 1..member.name().end - 1]);
            self.add(source, name, Name::InPlace(*member), member.value)?;
        }
        Ok(())
    }

    /// Adds a value of `source` under a key of ours.
    pub(super) fn given(
        &mut self,
        source: usize,
        name: &'a str,
        value: Value,
    ) -> Result<(), Clash> {
        self.add(
            source,
            Cow::Borrowed(name.as_bytes()),
            Name::Given(name),
            value,
        )
    }

    /// Adds a value of `source` under a key of ours that nothing may take or share.
    pub(super) fn ours(&mut self, source: usize, name: &'a str, value: Value) {
        let known = self
            .by_name
            .insert(Cow::Borrowed(name.as_bytes()), self.entries.len());
        if let Some(known) = known {
            self.entries[known].live = false;
        }
        self.entries.push(Entry {
            source,
            name: Name::Given(name),
            value,
            live: true,
            under: None,
        });
    }

    fn add(
        &mut self,
        source: usize,
        identity: Cow<'a, [u8]>,
        name: Name<'a>,
        value: Value,
    ) -> Result<(), Clash> {
        let next = self.entries.len();
        let mut entry = Entry {
            source,
            name,
            value,
            live: true,
            under: None,
        };
        match self.by_name.entry(identity) {
            Slot::Vacant(slot) => {
                slot.insert(next);
            }
            Slot::Occupied(mut slot) => {
                let known = &mut self.entries[*slot.get()];
                // Within one part the last duplicate wins, whatever the policy.
                let same_part = known.source == source;
                match self.policy {
                    Conflict::Error if !same_part => {
                        return Err(Clash {
                            first: known.source,
                            second: source,
                        });
                    }
                    Conflict::First if !same_part => entry.live = false,
                    _ => {
                        known.live = false;
                        entry.under = if same_part {
                            known.under
                        } else {
                            (self.policy == Conflict::Deep).then(|| *slot.get())
                        };
                        slot.insert(next);
                    }
                }
            }
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Writes the union as an object. Neighbours that stay neighbours are moved as one span.
    pub(super) fn write(&self, splice: &mut Splice) {
        splice.text(b"{");
        let mut separator: &[u8] = b"";
        let mut at = 0;
        while let Some(entry) = self.entries.get(at) {
            at += 1;
            if !entry.live {
                continue;
            }
            splice.text(separator);
            separator = b",";
            let Some(mut run) = entry.movable() else {
                self.write_entry(entry, splice);
                continue;
            };
            while let Some(next) = self.entries.get(at) {
                match next.movable() {
                    Some(range) if next.live && next.source == entry.source => run.end = range.end,
                    _ => break,
                }
                at += 1;
            }
            splice.span(&self.sources[entry.source], run);
        }
        splice.text(b"}");
    }

    fn write_entry(&self, entry: &Entry<'_>, splice: &mut Splice) {
        let source = &self.sources[entry.source];
        match entry.name {
            Name::InPlace(member) => splice.text(&source.bytes[member.name()]),
            Name::Given(name) => {
                let mut text = Vec::with_capacity(name.len() + 2);
                write_json_str(&mut text, name);
                splice.text(&text);
            }
        }
        splice.text(b":");
        let layers = self.layers(entry);
        if layers.len() == 1 {
            splice.span(source, entry.value.range());
            return;
        }
        let mut union = Union::new(self.sources, self.policy, 16);
        union.levels = self.levels - 1;
        for (source, object) in layers {
            let members = members(&self.sources[source].bytes, object);
            // Only `Error` clashes, and this is `Deep`.
            let added = union.members(source, &members);
            debug_assert!(added.is_ok());
        }
        union.write(splice);
    }

    /// The objects that make up the entry's value, the lowest first. What is not an object hides all below it.
    fn layers(&self, entry: &Entry<'_>) -> Vec<(usize, Value)> {
        let mut layers = vec![(entry.source, entry.value)];
        let is_object =
            |entry: &Entry<'_>| entry.value.is_object(&self.sources[entry.source].bytes);
        let mut top = entry;
        while let (true, Some(under)) = (self.levels > 0 && is_object(top), top.under) {
            let below = &self.entries[under];
            if !is_object(below) {
                break;
            }
            layers.push((below.source, below.value));
            top = below;
        }
        layers.reverse();
        layers
    }
}

impl Entry<'_> {
    /// The span of the whole member, if it can be moved as it is.
    fn movable(&self) -> Option<Range<usize>> {
        match self.name {
            Name::InPlace(member) if self.under.is_none() => Some(member.range()),
            _ => None,
        }
    }
}
