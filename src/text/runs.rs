//! Runs of one kind of character that are longer than any word: a text padded with blanks, digits of base 16, a sequence of
//! nucleotides.
//!
//! Nothing in BERT's pipeline tells a long run from a longer one. Its pre-tokenizer parts neither ASCII letters nor digits,
//! and a word of more characters than the model takes is one unknown token, whatever they are; white space is dropped. So the
//! middle of such a run is left out before the tokenizers crate, which takes a microsecond and some 60 bytes for each
//! byte of it, sees it. Only an added token could tell, one that takes letters of the run's ends along; so at each end as much is kept
//! as the longest one has, and what makes a word too long besides.

use tokenizers::models::ModelWrapper;

use super::cuts::added_tokens;

/// How long a run has to be before its middle is left out.
#[derive(Debug)]
pub(super) struct Runs {
    /// Bytes that stay at each end; absent where runs matter.
    kept: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    LetterOrDigit,
    WhiteSpace,
    Other,
}

fn kind(byte: u8) -> Kind {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => Kind::LetterOrDigit,
        b' ' | b'\t' | b'\n' | b'\r' => Kind::WhiteSpace,
        _ => Kind::Other,
    }
}

/// A text without the middles of its long runs.
pub(super) struct Shortened {
    pub text: String,
    /// In ascending order: a place in `text`, and how many bytes have been left out up to there.
    left_out: Vec<(usize, usize)>,
}

impl Shortened {
    /// Where byte `at` of the short text lies in the long one.
    pub fn original(&self, at: usize) -> usize {
        let before = self.left_out.partition_point(|&(place, _)| place <= at);
        at + before.checked_sub(1).map_or(0, |last| self.left_out[last].1)
    }
}

impl Runs {
    pub fn new(tokenizer: &tokenizers::Tokenizer) -> Self {
        let none = Runs { kept: None };
        let (Some(added), ModelWrapper::WordPiece(model)) = (added_tokens(tokenizer), tokenizer.get_model()) else {
            return none;
        };
        // A token of one kind alone could stand within a run.
        let is_one_kind = |token: &String| {
            let mut kinds = token.bytes().map(kind);
            let first = kinds.next();
            first != Some(Kind::Other) && kinds.all(|kind| Some(kind) == first)
        };
        if added.iter().any(is_one_kind) {
            return none;
        }
        let longest = added.iter().map(String::len).max().unwrap_or(0);
        Runs {
            kept: Some(longest.saturating_add(model.max_input_chars_per_word)),
        }
    }

    /// `text` with the same tokens; `None` if nothing can be left out.
    pub fn shorten(&self, text: &str) -> Option<Shortened> {
        let kept = self.kept?;
        let long = kept.checked_mul(2)?;
        let mut short = Shortened {
            text: String::new(),
            left_out: Vec::new(),
        };
        let (mut copied, mut left_out) = (0, 0);
        let mut begin = 0;
        for run in text.as_bytes().chunk_by(|&a, &b| kind(a) == kind(b)) {
            let end = begin + run.len();
            if run.len() > long && kind(run[0]) != Kind::Other {
                short.text.push_str(&text[copied..begin + kept]);
                copied = end - kept;
                left_out += run.len() - long;
                short.left_out.push((short.text.len(), left_out));
            }
            begin = end;
        }
        if left_out == 0 {
            return None;
        }
        short.text.push_str(&text[copied..]);
        Some(short)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_a_long_run_is_left_out_and_places_are_found_again() {
        let runs = Runs { kept: Some(2) };
        let text = "é-abcdefg,\t \n\t \n\nabcd--------Ω0123456789";
        let short = runs.shorten(text).unwrap();
        assert_eq!(short.text, "é-abfg,\t \n\nabcd--------Ω0189");
        for (at, c) in short.text.char_indices() {
            assert!(text[short.original(at)..].starts_with(c), "{at}");
        }
        assert_eq!(short.original(short.text.len()), text.len());
        assert!(runs.shorten("é-abcd,\t \n\t--------Ω").is_none());
    }

    #[test]
    fn no_limit_of_a_word_s_length_overflows() {
        for kept in [usize::MAX, usize::MAX / 2] {
            assert!(Runs { kept: Some(kept) }.shorten("aaaa").is_none());
        }
    }
}
