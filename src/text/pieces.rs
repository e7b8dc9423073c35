//! What pieces of texts between white space become, remembered: most texts are made of few words, and to look one up takes some
//! tens of nanoseconds where the tokenizers crate takes a microsecond.
//!
//! [`Cuts`](super::cuts) says why a text may be taken apart at plain white space, which gives no token itself. What is
//! remembered depends on the piece alone, so neither threads nor the order of texts change a token.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use super::cuts::added_tokens;

/// A token id and its byte range in a text.
pub(super) type Token = (u32, Range<usize>);

/// Pieces and what they become, shared between threads.
#[derive(Default)]
pub(super) struct Pieces(RwLock<Known>);

type Known = HashMap<Box<str>, Box<[PieceToken]>>;

/// A token id and its byte range in the piece.
struct PieceToken {
    id: u32,
    start: u8,
    end: u8,
}

/// Pieces that are remembered at once, some 10 MB; then all are forgotten.
const MOST_PIECES: usize = 1 << 16;
/// Longer ones are rarely seen again; their places fit into a byte.
const LONGEST_REMEMBERED: usize = 64;
/// A longer one is not to be tokenized whole.
const LONGEST: usize = 4 << 10;

impl Pieces {
    /// None where a text cannot be taken apart at white space.
    pub fn new(tokenizer: &tokenizers::Tokenizer) -> Option<Self> {
        let has_space = |token: &String| token.contains(char::is_whitespace);
        let takes_space = |token: &tokenizers::AddedToken| token.lstrip || token.rstrip;
        let added = added_tokens(tokenizer)?;
        let strips = tokenizer.get_added_tokens_decoder().values().any(takes_space);
        (!strips && !added.iter().any(has_space)).then(Self::default)
    }

    /// More than `budget` tokens from the start of the text, or all there are; `encode` gives those of a part of it. None, and the text
    /// is to be taken apart otherwise, where there is a very long piece.
    pub fn first_tokens<E>(
        &self,
        text: &str,
        budget: usize,
        mut encode: impl FnMut(Range<usize>, &mut Vec<Token>) -> Result<(), E>,
    ) -> Result<Option<Vec<Token>>, E> {
        let mut tokens: Vec<Token> = Vec::new();
        let mut new: Vec<(Range<usize>, Range<usize>)> = Vec::new();
        let mut known = self.read();
        for piece in pieces(text) {
            if tokens.len() > budget {
                break;
            }
            if let Some(found) = known.get(&text[piece.clone()]) {
                let place = |at: u8| piece.start + usize::from(at);
                tokens.extend(
                    found
                        .iter()
                        .map(|token| (token.id, place(token.start)..place(token.end))),
                );
                continue;
            }
            if piece.len() > LONGEST {
                return Ok(None);
            }
            // Not held while something is encoded, so that nobody waits for it.
            drop(known);
            let begin = tokens.len();
            encode(piece.clone(), &mut tokens)?;
            if piece.len() <= LONGEST_REMEMBERED {
                new.push((piece, begin..tokens.len()));
            }
            known = self.read();
        }
        drop(known);
        self.remember(text, &tokens, new);
        Ok(Some(tokens))
    }

    /// `new`: pieces of the text, and which of the tokens they became.
    fn remember(&self, text: &str, tokens: &[Token], new: Vec<(Range<usize>, Range<usize>)>) {
        if new.is_empty() {
            return;
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() + new.len() > MOST_PIECES {
            known.clear();
        }
        for (piece, its_tokens) in new {
            let place = |at: usize| (at - piece.start) as u8;
            let its_tokens = tokens[its_tokens].iter().map(|(id, at)| PieceToken {
                id: *id,
                start: place(at.start),
                end: place(at.end),
            });
            known.insert(text[piece.clone()].into(), its_tokens.collect());
        }
    }

    /// A panic elsewhere leaves what is known whole: it is written after everything that could panic.
    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The byte ranges of a text between plain white space, in order.
fn pieces(text: &str) -> impl Iterator<Item = Range<usize>> {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    let mut from = 0;
    let split = text.as_bytes().split(is_space).map(move |piece| {
        let begin = from;
        from += piece.len() + 1;
        begin..begin + piece.len()
    });
    split.filter(|piece| !piece.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token for each character.
    fn characters(text: &str, piece: Range<usize>, tokens: &mut Vec<Token>) {
        let in_piece = text[piece.clone()].char_indices();
        tokens.extend(in_piece.map(|(at, c)| (u32::from(c), piece.start + at..piece.start + at + c.len_utf8())));
    }

    #[test]
    fn each_piece_is_encoded_once_and_has_its_own_places() {
        let pieces = Pieces::default();
        let mut encoded: Vec<String> = Vec::new();
        let mut tokens = |text: &str, budget| {
            pieces.first_tokens::<()>(text, budget, |piece, tokens| {
                encoded.push(text[piece.clone()].to_owned());
                characters(text, piece, tokens);
                Ok(())
            })
        };
        let whole = |text: &str| {
            let mut tokens = Vec::new();
            characters(text, 0..text.len(), &mut tokens);
            tokens.retain(|(id, _)| !matches!(id, 9 | 10 | 13 | 32));
            tokens
        };
        for text in ["aé b\t\n b\r", "b aé", "", "  ", "\u{a0} b"] {
            assert_eq!(tokens(text, 100).unwrap().unwrap(), whole(text), "{text:?}");
        }
        // No more pieces than it takes, and nothing of a very long one.
        assert_eq!(tokens("b c d", 1).unwrap().unwrap(), whole("b c"));
        assert_eq!(tokens(&format!("b {}", "x".repeat(5000)), 100), Ok(None));
        let long = "y".repeat(65);
        for _ in 0..2 {
            assert_eq!(tokens(&long, 100).unwrap().unwrap(), whole(&long));
        }
        assert_eq!(encoded, ["aé", "b", "b", "\u{a0}", "c", &long, &long]);
        // What could not be encoded is not remembered.
        let failed = pieces.first_tokens("q", 100, |_, _| Err("no"));
        assert_eq!(failed, Err("no"));
        assert_eq!(pieces.first_tokens::<()>("q", 100, |_, _| Ok(())), Ok(Some(Vec::new())));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let pieces = Pieces::default();
        for begin in (0..3 * MOST_PIECES).step_by(1000) {
            let text: Vec<String> = (begin..begin + 1000).map(|i| i.to_string()).collect();
            let text = text.join(" ");
            let found = pieces.first_tokens::<()>(&text, usize::MAX, |piece, tokens| {
                characters(&text, piece, tokens);
                Ok(())
            });
            assert_eq!(found.unwrap().unwrap().len(), text.len() - 999);
        }
        assert!((1000..=MOST_PIECES).contains(&pieces.read().len()));
    }
}
