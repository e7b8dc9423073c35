//! What brat's events say of mentions.
//!
//! An event has a trigger, a text-bound annotation of the event's own type, and arguments. Corpora use it in two ways. A
//! trigger may say that something happens ("caused"), and what it happens to are arguments, a drug and a reaction: they are related,
//! and the trigger is no mention. Or the trigger is itself what is annotated, a reaction with its severity, say. So an event
//! *stands for* its trigger if it has no arguments, or if the trigger is a drug or a reaction, none of its arguments is
//! another one of the same, and something says that the event is one: a relation, an equivalence, an identifier or another event
//! names it, or an event of its type has no arguments.

use std::collections::{HashMap, HashSet};

use crate::Side;
use crate::corpora::document::{RawDocument, RawEndpoint, RawMention, RawRelation};
use crate::corpora::options::Options;
use crate::words::quoted;

pub(super) struct Event<'a> {
    pub line: u64,
    pub key: &'a str,
    pub kind: &'a str,
    pub trigger: Option<&'a str>,
    pub arguments: Vec<&'a str>,
}

/// A relation or an event of which it is not known what it relates.
pub(super) struct Lost {
    pub line: u64,
    pub kind: String,
    pub message: String,
}

/// A document's events, and what their keys mean.
pub(super) struct Events<'a> {
    events: &'a [Event<'a>],
    by_key: HashMap<&'a str, &'a Event<'a>>,
    options: &'a Options,
    /// Of events that stand for their triggers, these.
    stands_for: HashMap<&'a str, &'a str>,
    /// What mentions are, before triggers are taken out of them.
    sides: HashMap<String, Side>,
}

impl<'a> Events<'a> {
    /// `named`: keys that stand elsewhere than in relations and events.
    pub fn new(
        events: &'a [Event<'a>],
        document: &RawDocument,
        named: impl Iterator<Item = &'a str>,
        options: &'a Options,
    ) -> Self {
        let sides = document.mentions.iter();
        let sides = sides.filter_map(|mention| Some((mention.key.clone(), options.side(&mention.kind)?)));
        let mut this = Self {
            events,
            by_key: events.iter().map(|event| (event.key, event)).collect(),
            options,
            stands_for: HashMap::new(),
            sides: sides.collect(),
        };
        let mut names: HashSet<&str> = named.collect();
        names.extend(events.iter().flat_map(|event| &event.arguments));
        for end in document.relations.iter().flat_map(|relation| &relation.ends) {
            if let RawEndpoint::Mention(key) = end {
                names.insert(key);
            }
        }
        let without = events.iter().filter(|event| event.arguments.is_empty());
        let kinds: HashSet<&str> = without.map(|event| event.kind).collect();
        for event in events {
            let Some(trigger) = event.trigger else { continue };
            let is_named = [event.key, trigger].iter().any(|key| names.contains(key));
            let is_mention = || this.is_of_other_sides(event) && (is_named || kinds.contains(event.kind));
            if event.arguments.is_empty() || is_mention() {
                this.stands_for.insert(event.key, trigger);
            }
        }
        this
    }

    /// The mention that `key` means, if it is an event's that stands for one; else itself.
    pub fn meant<'k>(&self, key: &'k str) -> &'k str
    where
        'a: 'k,
    {
        self.stands_for.get(key).copied().unwrap_or(key)
    }

    /// What a mention is, or an event's trigger.
    fn side(&self, key: &str) -> Option<Side> {
        let key = self.by_key.get(key).map_or(Some(key), |event| event.trigger)?;
        self.sides.get(key).copied()
    }

    /// Whether the trigger is a drug or a reaction, and none of the arguments is what it is.
    fn is_of_other_sides(&self, event: &Event<'_>) -> bool {
        let side = event.trigger.and_then(|trigger| self.side(trigger));
        side.is_some() && event.arguments.iter().all(|argument| self.side(argument) != side)
    }

    /// Relates what events name, and takes the triggers that are no mentions out of those. Returns relations and events that may
    /// relate a drug and a reaction, in a way that is not understood.
    pub fn add_to(&self, document: &mut RawDocument, qualified: &HashSet<&str>) -> Vec<Lost> {
        // What is said of an event holds for the mention that it stands for.
        let stand = self.stands_for.iter().filter(|(event, _)| qualified.contains(*event));
        let qualified: HashSet<&str> = stand
            .map(|(_, trigger)| *trigger)
            .chain(qualified.iter().copied())
            .collect();
        let mut lost = self.relations(document, &qualified);
        for event in self.events {
            let is_qualified =
                qualified.contains(event.key) || event.arguments.iter().any(|key| qualified.contains(key));
            let pairs = self.pairs(event);
            let message = self.what_is_lost(event, &pairs);
            lost.extend(message.filter(|_| !is_qualified).map(|message| Lost {
                line: event.line,
                kind: event.kind.to_owned(),
                message,
            }));
            document.relations.extend(pairs.into_iter().map(|ends| RawRelation {
                line: event.line,
                kind: event.kind.to_owned(),
                ends: ends.map(|key| RawEndpoint::Mention(key.to_owned())),
                qualified: is_qualified,
            }));
        }
        let mentions: HashSet<&str> = self.stands_for.values().copied().collect();
        let triggers = self.events.iter().filter_map(|event| event.trigger);
        let triggers: HashSet<&str> = triggers.filter(|trigger| !mentions.contains(trigger)).collect();
        let is_trigger = |mention: &mut RawMention| triggers.contains(mention.key.as_str());
        let taken = document.mentions.extract_if(.., is_trigger).map(|mention| mention.key);
        document.triggers.extend(taken);
        lost
    }

    /// Ends of relations become mentions. What names an event that only relates others says nothing of a mention.
    fn relations(&self, document: &mut RawDocument, qualified: &HashSet<&str>) -> Vec<Lost> {
        let mut lost = Vec::new();
        for mut relation in std::mem::take(&mut document.relations) {
            let mut named = None;
            for end in &mut relation.ends {
                if let RawEndpoint::Mention(key) = end {
                    named = named.or(self.relating(key));
                    relation.qualified |= qualified.contains(key.as_str());
                    *key = self.meant(key).to_owned();
                }
            }
            let Some(event) = named else {
                document.relations.push(relation);
                continue;
            };
            let says_it_itself = self.pairs(event).iter().any(|pair| self.is_of_both_sides(pair));
            if says_it_itself || relation.qualified || !self.options.chooses(&relation.kind) {
                document.other_relations += 1;
                continue;
            }
            let message = format!(
                "{} relation: expected mentions, found the event {}, which relates others",
                quoted(&relation.kind),
                quoted(event.key)
            );
            lost.push(Lost {
                line: relation.line,
                kind: relation.kind,
                message,
            });
        }
        lost
    }

    /// The event of this key, if it relates others and stands for nothing itself.
    fn relating(&self, key: &str) -> Option<&'a Event<'a>> {
        let event = self.by_key.get(key).copied();
        event.filter(|event| !event.arguments.is_empty() && !self.stands_for.contains_key(key))
    }

    /// The mentions that an event relates: each two of its arguments, but events among them relate nothing by themselves; and a
    /// trigger that it stands for with those of the other side.
    fn pairs<'k>(&'k self, event: &'k Event<'a>) -> Vec<[&'k str; 2]> {
        let arguments = event.arguments.iter().map(|&key| self.meant(key));
        let arguments: Vec<&str> = arguments.filter(|key| key.starts_with('T')).collect();
        let mut pairs = Vec::new();
        for (i, one) in arguments.iter().enumerate() {
            pairs.extend(arguments[i + 1..].iter().map(|other| [*one, *other]));
        }
        if let Some(&trigger) = self.stands_for.get(event.key) {
            let with_trigger = arguments.iter().map(|argument| [trigger, *argument]);
            pairs.extend(with_trigger.filter(|pair| self.is_of_both_sides(pair)));
        }
        pairs
    }

    fn is_of_both_sides(&self, [one, other]: &[&str; 2]) -> bool {
        matches!((self.side(one), self.side(other)), (Some(one), Some(other)) if one != other)
    }

    /// Why an event of a chosen type that relates no drug and reaction may do so all the same.
    fn what_is_lost(&self, event: &Event<'_>, pairs: &[[&str; 2]]) -> Option<String> {
        if !self.options.chooses(event.kind) || pairs.iter().any(|pair| self.is_of_both_sides(pair)) {
            return None;
        }
        let kind = quoted(event.kind);
        if let Some(other) = event.arguments.iter().find_map(|key| self.relating(key)) {
            let name = quoted(other.key);
            return Some(format!(
                "{kind} event: expected mentions, found the event {name}, which relates others"
            ));
        }
        let is_mention = self.stands_for.contains_key(event.key);
        let names_other_side = event.arguments.iter().any(|argument| self.side(argument).is_some());
        (!is_mention && names_other_side && self.is_of_other_sides(event)).then(|| {
            let trigger = quoted(event.trigger.unwrap_or_default());
            format!(
                "{kind} event: expected a drug and a reaction among its arguments, found one of them, and nothing tells whether its \
                 trigger {trigger} is the other"
            )
        })
    }
}
