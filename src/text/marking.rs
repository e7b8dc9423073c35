//! Entity markers: where an entity stands in a text, and the text with markers around it.
//!
//! The model was trained on texts marked by Python's `str.replace`, so that is what
//! [`mark_every`] does, inside words and all. [`mark_span`] marks one stated occurrence. The
//! `locate_` twins find the same places and insert nothing, for models trained without markers.

use std::ops::Range;

use super::markers;
use crate::Side;
use crate::words::shortened;

/// A text as the tokenizer shall see it, and where its entity stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MarkedText {
    /// The text, markers inserted.
    pub text: String,
    /// Byte ranges in `text`, ascending: from the opening marker's first byte to the closing
    /// marker's end (the bare entity where nothing was inserted). Empty when it does not occur.
    pub mentions: Vec<Range<usize>>,
}

/// A span that does not hold the entity it was given for. Whoever knows where the span comes from names that first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MarkError {
    #[error(
        "expected start < end, found [{start}, {end}); a span is [start, end) in Unicode code points, end excluded"
    )]
    SpanEmpty { start: usize, end: usize },
    #[error(
        "expected a span within the text, which has only {chars} Unicode code points, found [{start}, {end}){}",
        place(*stands_at)
    )]
    SpanOutOfRange {
        start: usize,
        end: usize,
        chars: usize,
        /// Where the entity is, if it is in one place only.
        stands_at: Option<[usize; 2]>,
    },
    #[error(
        "expected {expected:?} at [{start}, {end}), found {found:?}{}; spans count Unicode code points, not bytes",
        place(*stands_at)
    )]
    SpanMismatch {
        start: usize,
        end: usize,
        expected: String,
        found: String,
        stands_at: Option<[usize; 2]>,
    },
}

fn place(span: Option<[usize; 2]>) -> String {
    span.map_or_else(String::new, |[start, end]| format!("; it stands at [{start}, {end})"))
}

/// The text with every occurrence of `entity` marked, as Python's
/// `text.replace(entity, "[DRUG] " + entity + " [/DRUG]")` does: non-overlapping, left to right,
/// case-sensitive, also inside words.
///
/// `mentions` is empty when `entity` is empty or does not occur; the text is then unchanged.
/// (Python inserts an empty entity between all characters; callers refuse it before.)
pub fn mark_every(text: &str, entity: &str, side: Side) -> MarkedText {
    mark(text, occurrences(text, entity), side)
}

/// The text with the one occurrence at `span` marked: `[start, end)` in Unicode code points.
///
/// Errors if the span is empty, leaves the text, or holds anything but `entity`.
pub fn mark_span(text: &str, entity: &str, span: [usize; 2], side: Side) -> Result<MarkedText, MarkError> {
    Ok(mark(text, vec![checked_span(text, entity, span)?], side))
}

/// The text as it is, with every occurrence of `entity` as a mention; see [`mark_every`].
pub fn locate_every(text: &str, entity: &str) -> MarkedText {
    MarkedText {
        text: text.to_owned(),
        mentions: occurrences(text, entity),
    }
}

/// The text as it is, with the occurrence at `span` as its mention; see [`mark_span`].
pub fn locate_span(text: &str, entity: &str, span: [usize; 2]) -> Result<MarkedText, MarkError> {
    let mention = checked_span(text, entity, span)?;
    Ok(MarkedText {
        text: text.to_owned(),
        mentions: vec![mention],
    })
}

/// The text as it is, without mentions.
pub fn unmarked(text: &str) -> MarkedText {
    MarkedText {
        text: text.to_owned(),
        mentions: Vec::new(),
    }
}

fn occurrences(text: &str, entity: &str) -> Vec<Range<usize>> {
    if entity.is_empty() {
        return Vec::new();
    }
    // Much faster than `match_indices`, which looks at the entity anew for each text; the same places, whole characters.
    memchr::memmem::find_iter(text.as_bytes(), entity)
        .map(|start| start..start + entity.len())
        .collect()
}

/// `places`: byte ranges of `text` on character boundaries, ascending, not overlapping.
fn mark(text: &str, places: Vec<Range<usize>>, side: Side) -> MarkedText {
    let (opening, closing) = markers(side);
    let mut marked = String::with_capacity(text.len() + places.len() * (opening.len() + closing.len() + 2));
    let mut mentions = Vec::with_capacity(places.len());
    let mut copied = 0;
    for place in places {
        marked.push_str(&text[copied..place.start]);
        let start = marked.len();
        marked.push_str(opening);
        marked.push(' ');
        marked.push_str(&text[place.clone()]);
        marked.push(' ');
        marked.push_str(closing);
        mentions.push(start..marked.len());
        copied = place.end;
    }
    marked.push_str(&text[copied..]);
    MarkedText { text: marked, mentions }
}

/// The byte range of a code point span, once it is known to hold `entity`.
fn checked_span(text: &str, entity: &str, [start, end]: [usize; 2]) -> Result<Range<usize>, MarkError> {
    if start >= end {
        return Err(MarkError::SpanEmpty { start, end });
    }
    // The boundaries of n code points are n + 1: the end of the text is one.
    let mut boundaries = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    let first = boundaries.nth(start);
    let last = first.and_then(|_| boundaries.nth(end - start - 1));
    let (Some(first), Some(last)) = (first, last) else {
        return Err(MarkError::SpanOutOfRange {
            start,
            end,
            chars: text.chars().count(),
            stands_at: only_span(text, entity),
        });
    };
    let found = &text[first..last];
    if found != entity {
        return Err(MarkError::SpanMismatch {
            start,
            end,
            expected: shortened(entity, SHOWN_CHARACTERS),
            found: shortened(found, SHOWN_CHARACTERS),
            stands_at: only_span(text, entity),
        });
    }
    Ok(first..last)
}

/// The span of `entity` in code points, if it occurs once.
fn only_span(text: &str, entity: &str) -> Option<[usize; 2]> {
    match &occurrences(text, entity)[..] {
        [only] => {
            let start = text[..only.start].chars().count();
            Some([start, start + entity.chars().count()])
        }
        _ => None,
    }
}

/// So that a span over a whole document does not become the message.
const SHOWN_CHARACTERS: usize = 60;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Python's `str.replace` for a non-empty pattern, in the plainest form.
    fn naive_replace(text: &str, pattern: &str, replacement: &str) -> String {
        let (text, pattern): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
        let mut out = String::new();
        let mut at = 0;
        while at < text.len() {
            if text[at..].starts_with(&pattern) {
                out.push_str(replacement);
                at += pattern.len();
            } else {
                out.push(text[at]);
                at += 1;
            }
        }
        out
    }

    #[test]
    fn an_entity_inside_a_hyphenated_word_is_marked_as_the_original_does() {
        let marked = mark_every(
            "Intravenous azithromycin-induced ototoxicity.",
            "azithromycin",
            Side::Drug,
        );
        assert_eq!(
            marked.text,
            "Intravenous [DRUG] azithromycin [/DRUG]-induced ototoxicity."
        );
        assert_eq!(marked.mentions.len(), 1);
        assert_eq!(marked.mentions[0], 12..39);
        assert_eq!(&marked.text[12..39], "[DRUG] azithromycin [/DRUG]");
    }

    #[test]
    fn overlapping_occurrences_are_taken_left_to_right() {
        let marked = mark_every("aaaa ana anana", "ana", Side::Adr);
        assert_eq!(marked.text, "aaaa [ADR] ana [/ADR] [ADR] ana [/ADR]na");
        assert_eq!(marked.mentions.len(), 2);
    }

    #[test]
    fn an_entity_that_does_not_occur_or_is_empty_marks_nothing() {
        for entity in ["Aspirin", ""] {
            assert_eq!(mark_every("aspirin", entity, Side::Drug), unmarked("aspirin"));
        }
    }

    #[test]
    fn a_span_marks_one_occurrence_and_counts_code_points() {
        let marked = mark_span("💊 α-x, α-x", "α-x", [7, 10], Side::Drug).unwrap();
        assert_eq!(marked.text, "💊 α-x, [DRUG] α-x [/DRUG]");
        assert_eq!(&marked.text[marked.mentions[0].clone()], "[DRUG] α-x [/DRUG]");
    }

    #[test]
    fn a_span_locates_the_occurrence_that_it_states() {
        let text = "💊 α-x, α-x";
        for (span, mention) in [([2, 5], 5..9), ([7, 10], 11..15)] {
            let located = locate_span(text, "α-x", span).unwrap();
            assert_eq!((located.text.as_str(), &located.mentions[..]), (text, &[mention][..]));
        }
    }

    #[test]
    fn a_wrong_span_shows_what_stands_there() {
        let message = |span| {
            mark_span("took aspirin", "aspirin", span, Side::Drug)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            message([4, 11]),
            "expected \"aspirin\" at [4, 11), found \" aspiri\"; it stands at [5, 12); spans count Unicode code points, \
             not bytes"
        );
        assert_eq!(
            message([5, 13]),
            "expected a span within the text, which has only 12 Unicode code points, found [5, 13); it stands at [5, 12)"
        );
        assert!(message([99, 100]).contains("only 12 Unicode code points, found [99, 100)"));
        assert!(message([5, 5]).contains("expected start < end, found [5, 5)"));
        assert!(message([12, 5]).contains("expected start < end"));
        assert!(message([0, usize::MAX]).contains("only 12"));
    }

    #[test]
    fn where_an_entity_stands_is_said_if_it_is_one_place() {
        let message = |text, entity| mark_span(text, entity, [0, 2], Side::Drug).unwrap_err().to_string();
        assert!(message("💊 α-x", "α-x").contains("it stands at [2, 5)"));
        for (text, entity) in [("a b c b", "b"), ("no such name", "b"), ("empty", "")] {
            assert!(!message(text, entity).contains("it stands"), "{text}");
        }
    }

    #[test]
    fn a_long_slice_is_shortened_in_the_message() {
        let error = mark_span(&"x".repeat(5_000), "y", [0, 4_000], Side::Adr)
            .unwrap_err()
            .to_string();
        assert!(error.len() < 250, "{error}");
    }

    proptest! {
        #[test]
        fn marking_every_occurrence_equals_str_replace(text in "[ab é💊-]{0,30}", entity in "[ab é💊-]{1,3}") {
            let replacement = format!("[ADR] {entity} [/ADR]");
            let marked = mark_every(&text, &entity, Side::Adr);
            prop_assert_eq!(&marked.text, &naive_replace(&text, &entity, &replacement));
            prop_assert_eq!(marked.mentions.len(), text.matches(&entity).count());
            for mention in &marked.mentions {
                prop_assert_eq!(&marked.text[mention.clone()], &replacement);
            }
            let located = locate_every(&text, &entity);
            let places: Vec<_> = text.match_indices(&entity).map(|(at, found)| at..at + found.len()).collect();
            prop_assert_eq!((&located.text, &located.mentions), (&text, &places));
        }

        #[test]
        fn marking_a_span_inserts_markers_there_and_nothing_else(text in ".{0,20}", from in 0usize..20, length in 1usize..20) {
            let chars: Vec<char> = text.chars().collect();
            let (start, end) = (from, from + length);
            let entity: String = chars.iter().skip(start).take(length).collect();
            match mark_span(&text, &entity, [start, end], Side::Drug) {
                Ok(marked) => {
                    let before: String = chars[..start].iter().collect();
                    let after: String = chars[end..].iter().collect();
                    prop_assert_eq!(&marked.text, &format!("{before}[DRUG] {entity} [/DRUG]{after}"));
                    prop_assert_eq!(&marked.text[marked.mentions[0].clone()], &format!("[DRUG] {entity} [/DRUG]"));
                    let located = locate_span(&text, &entity, [start, end]).unwrap();
                    let mention = before.len()..before.len() + entity.len();
                    prop_assert_eq!(&located.mentions[..], std::slice::from_ref(&mention));
                }
                Err(error) => prop_assert!(end > chars.len(), "{}", error),
            }
        }

        #[test]
        fn marking_never_panics(text in any::<String>(), entity in any::<String>(), span in any::<[usize; 2]>()) {
            mark_every(&text, &entity, Side::Drug);
            let _ = mark_span(&text, &entity, span, Side::Adr);
            let _ = locate_span(&text, &entity, span);
        }
    }
}
