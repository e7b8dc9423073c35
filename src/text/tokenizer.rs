//! The tokenizer: a marked text to at most `max_length` token ids, the first of them `[CLS]` and
//! the last `[SEP]`, as the Hugging Face fast tokenizer gives them.
//!
//! Reading the files is `loading`'s; where a text may be cut before it is tokenized, `cuts`'; what of it need not be seen,
//! `runs`'; what has been tokenized before, `pieces`'.

use std::collections::VecDeque;
use std::ops::Range;

use tokenizers::Encoding;

use super::MARKERS;
use super::configuration::TokenizerFiles;
use super::cuts::Cuts;
use super::error::TokenizerError;
use super::loading;
use super::marking::MarkedText;
use super::pieces::{Pieces, Token};
use super::runs::Runs;
use crate::guard::guarded;

/// Which tokens of a text that is too long are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Truncation {
    /// The first ones, as `truncation=True` does.
    #[default]
    Start,
    /// Those around the first mention.
    Mention,
}

/// One text's token ids, and what did not fit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tokenized {
    /// `[CLS]`, the kept tokens, `[SEP]`; no padding.
    pub token_ids: Vec<u32>,
    /// Tokens were left out.
    pub truncated: bool,
    /// There are mentions, and none of them lies whole, with both its markers, in `token_ids`.
    pub mention_truncated: bool,
}

/// A BERT tokenizer with the model's markers; may be shared between threads.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    cuts: Cuts,
    runs: Runs,
    pieces: Option<Pieces>,
    cls: u32,
    sep: u32,
    marker_ids: Option<[u32; 4]>,
    vocab_size: usize,
    file: String,
    doubts: Vec<String>,
    files_have_markers: bool,
}

/// The first piece of a text where nothing is remembered. 4 KiB is some 900 tokens of English.
const WHOLE_BYTES: usize = 4 << 10;

/// A piece's length: the tokenizers crate needs some 100 bytes of memory for one of text.
const PIECE_BYTES: usize = 64 << 10;

impl Tokenizer {
    /// Reads `tokenizer.json`, else `vocab.txt`, and what the other files add.
    ///
    /// With `markers` the four [`MARKERS`] become special tokens where they are none yet, on the
    /// next free ids in that order. Padding and truncation stored in `tokenizer.json` are ignored, but for their sides.
    ///
    /// Errors name the file: missing, malformed, not a WordPiece tokenizer with `[CLS]` and
    /// `[SEP]`, or ids that contradict each other.
    pub fn load(files: &TokenizerFiles, markers: bool) -> Result<Self, TokenizerError> {
        let loading::Loaded {
            tokenizer,
            cls,
            sep,
            file,
            doubts,
            files_have_markers,
        } = loading::load(files, markers)?;
        let marker_ids = match MARKERS.map(|marker| tokenizer.token_to_id(marker)) {
            [Some(a), Some(b), Some(c), Some(d)] if markers => Some([a, b, c, d]),
            _ => None,
        };
        let vocab_size = tokenizer
            .get_vocab(true)
            .into_values()
            .max()
            .map_or(0, |id| id as usize + 1);
        Ok(Tokenizer {
            cuts: Cuts::new(&tokenizer),
            runs: Runs::new(&tokenizer),
            pieces: Pieces::new(&tokenizer),
            inner: tokenizer,
            cls,
            sep,
            marker_ids,
            vocab_size,
            file,
            doubts,
            files_have_markers,
        })
    }

    /// The largest id + 1, markers included: the rows that the embedding must have.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The ids of the four [`MARKERS`], if the tokenizer was loaded with them.
    pub fn marker_ids(&self) -> Option<[u32; 4]> {
        self.marker_ids
    }

    /// Whether the files know of the markers, or there are none.
    pub fn files_have_markers(&self) -> bool {
        self.files_have_markers
    }

    /// What the files leave open: each is right for some model, and with another's the ids are wrong.
    pub fn doubts(&self) -> &[String] {
        &self.doubts
    }

    /// One line for `crag inspect`.
    pub fn description(&self) -> String {
        let case = match self.inner.get_normalizer() {
            Some(tokenizers::normalizers::NormalizerWrapper::BertNormalizer(n)) if n.lowercase => ", uncased",
            Some(tokenizers::normalizers::NormalizerWrapper::BertNormalizer(_)) => ", cased",
            _ => "",
        };
        let markers = match self.marker_ids {
            Some(ids) => format!("markers {}", ids.map(|id| id.to_string()).join(", ")),
            None => "no markers".to_owned(),
        };
        format!(
            "WordPiece{case}, {} ids, {markers}, from {}",
            self.vocab_size, self.file
        )
    }

    /// The token ids of a text, at most `max_length` of them (but never fewer than `[CLS]`, `[SEP]`).
    ///
    /// [`Truncation::Start`] keeps what `max_length=…, truncation=True` keeps. [`Truncation::Mention`] keeps
    /// as many tokens with the first mention in their middle, moved inward where the text ends
    /// before the window does; a mention longer than the window keeps its start. The two agree where
    /// everything fits and where nothing is mentioned.
    ///
    /// Time and memory are bounded by what must be looked at, not by the text's length, unless
    /// the text has no place to cut it at all and is not one long run either.
    pub fn tokenize(
        &self,
        marked: &MarkedText,
        max_length: usize,
        truncation: Truncation,
    ) -> Result<Tokenized, TokenizerError> {
        let budget = max_length.saturating_sub(2);
        let tokens = self.first_tokens(&marked.text, budget)?;
        if tokens.len() <= budget {
            return Ok(self.tokenized(tokens.into_iter().map(|(id, _)| id), false, false));
        }
        match (truncation, marked.mentions.first()) {
            (Truncation::Mention, Some(mention)) => self.around(&marked.text, mention, budget),
            (_, first_mention) => {
                let dropped_from = tokens[budget].1.start;
                let mention_truncated = first_mention.is_some_and(|mention| mention.end > dropped_from);
                Ok(self.tokenized(
                    tokens.into_iter().take(budget).map(|(id, _)| id),
                    true,
                    mention_truncated,
                ))
            }
        }
    }

    /// More than `budget` tokens from the start of the text, or all there are.
    fn first_tokens(&self, text: &str, budget: usize) -> Result<Vec<Token>, TokenizerError> {
        if let Some(pieces) = &self.pieces {
            let encode = |piece, tokens: &mut Vec<Token>| self.encode_piece(text, piece, |token| tokens.push(token));
            if let Some(tokens) = pieces.first_tokens(text, budget, encode)? {
                return Ok(tokens);
            }
        }
        self.first_tokens_by_cuts(text, budget)
    }

    /// The same, of which nothing is remembered.
    fn first_tokens_by_cuts(&self, text: &str, budget: usize) -> Result<Vec<Token>, TokenizerError> {
        let mut tokens = Vec::new();
        let mut from = 0;
        while tokens.len() <= budget && from < text.len() {
            let to = self
                .cuts
                .at_or_after(text, from + if from == 0 { WHOLE_BYTES } else { PIECE_BYTES });
            self.encode_piece(text, from..to, |token| tokens.push(token))?;
            from = to;
        }
        Ok(tokens)
    }

    /// The window of `budget` tokens around a mention, in a text of more than `budget` tokens.
    fn around(&self, text: &str, mention: &Range<usize>, budget: usize) -> Result<Tokenized, TokenizerError> {
        let anchor = self.cuts.at_or_before(text, mention.start);
        let mut tokens = VecDeque::new();
        let mut to = anchor;
        let mut piece_bytes = WHOLE_BYTES;
        // The window begins at the mention or before it; twice the budget from there on is more
        // than it can reach, whether the mention fits or not.
        while to < text.len() && reaching(&tokens, mention.start) <= 2 * budget {
            let from = to;
            to = self.cuts.at_or_after(text, from + piece_bytes);
            self.encode_piece(text, from..to, |token| tokens.push_back(token))?;
            piece_bytes = PIECE_BYTES;
        }
        let mut from = anchor;
        let mut piece_bytes = WHOLE_BYTES;
        while from > 0 && tokens.len() - reaching(&tokens, mention.start) < budget {
            let to = from;
            from = self.cuts.at_or_before(text, to.saturating_sub(piece_bytes));
            let mut piece = Vec::new();
            self.encode_piece(text, from..to, |token| piece.push(token))?;
            for token in piece.into_iter().rev() {
                tokens.push_front(token);
            }
            piece_bytes = PIECE_BYTES;
        }

        let opening = tokens.len() - reaching(&tokens, mention.start);
        let length = tokens
            .iter()
            .skip(opening)
            .take_while(|(_, at)| at.start < mention.end)
            .count();
        let before = budget.saturating_sub(length) / 2;
        let start = opening.saturating_sub(before).min(tokens.len().saturating_sub(budget));
        let kept = tokens.into_iter().skip(start).take(budget).map(|(id, _)| id);
        Ok(self.tokenized(kept, true, length > budget))
    }

    /// The tokens of `text[piece]`, whose ends are cuts, with their places in `text`.
    fn encode_piece(&self, text: &str, piece: Range<usize>, mut push: impl FnMut(Token)) -> Result<(), TokenizerError> {
        let long = &text[piece.clone()];
        let short = self.runs.shorten(long);
        let input = short.as_ref().map_or(long, |short| short.text.as_str());
        let encoding = encoded(text, || self.inner.encode(input, false))?;
        let place = |at| piece.start + short.as_ref().map_or(at, |short| short.original(at));
        for (&id, &(start, end)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
            push((id, place(start)..place(end)));
        }
        Ok(())
    }

    fn tokenized(&self, tokens: impl Iterator<Item = u32>, truncated: bool, mention_truncated: bool) -> Tokenized {
        let token_ids = [self.cls].into_iter().chain(tokens).chain([self.sep]).collect();
        Tokenized {
            token_ids,
            truncated,
            mention_truncated,
        }
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("description", &self.description())
            .finish_non_exhaustive()
    }
}

/// How many of the tokens, which ascend, end after byte `at`.
fn reaching(tokens: &VecDeque<Token>, at: usize) -> usize {
    tokens.len() - tokens.partition_point(|(_, range)| range.end <= at)
}

/// What `encode` makes of `text` or of a part of it; it may panic, as with what a tokenizer.json asks for.
fn encoded(text: &str, encode: impl FnOnce() -> tokenizers::Result<Encoding>) -> Result<Encoding, TokenizerError> {
    let failed = |reason: String| TokenizerError::Failed {
        bytes: text.len(),
        reason,
    };
    guarded(encode)
        .map_err(failed)?
        .map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests;
