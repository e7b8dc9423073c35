//! Places where a text can be cut so that the pieces' tokens, put together, are the text's tokens.
//!
//! A text of 16 MiB must not be tokenized whole for the sake of 126 tokens. With BERT's normalizer
//! and pre-tokenizer nothing reaches across a plain space, an ASCII punctuation character or a
//! Chinese character: each ends the word before it, survives the normalizer, and is a starter in
//! Unicode's sense, so that canonical reordering of combining marks stops there. What could reach
//! across is an added token; a place inside an occurrence of one is no cut.

use tokenizers::AddedToken;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;

/// The added tokens that a cut must not part; absent where the pipeline is not the one above.
#[derive(Debug)]
pub(super) struct Cuts {
    added: Option<Vec<String>>,
    chinese: bool,
}

/// What the tokens are that were added to BERT's pipeline; `None` where the pipeline is another, or where a token looks at what
/// stands around it.
pub(super) fn added_tokens(tokenizer: &tokenizers::Tokenizer) -> Option<Vec<String>> {
    let Some(NormalizerWrapper::BertNormalizer(_)) = tokenizer.get_normalizer() else {
        return None;
    };
    let Some(PreTokenizerWrapper::BertPreTokenizer(_)) = tokenizer.get_pre_tokenizer() else {
        return None;
    };
    let tokens: Vec<AddedToken> = tokenizer.get_added_tokens_decoder().into_values().collect();
    // Normalized tokens match after the normalizer, single words look at their neighbours.
    if tokens.iter().any(|token| token.normalized || token.single_word) {
        return None;
    }
    Some(tokens.into_iter().map(|token| token.content).collect())
}

impl Cuts {
    pub fn new(tokenizer: &tokenizers::Tokenizer) -> Self {
        let chinese = match tokenizer.get_normalizer() {
            Some(NormalizerWrapper::BertNormalizer(normalizer)) => normalizer.handle_chinese_chars,
            _ => false,
        };
        Cuts {
            added: added_tokens(tokenizer),
            chinese,
        }
    }

    /// The first cut at `from` or after it, else the end of `text`.
    pub fn at_or_after(&self, text: &str, from: usize) -> usize {
        if self.added.is_none() || from >= text.len() {
            return text.len();
        }
        let from = text.ceil_char_boundary(from);
        text[from..]
            .char_indices()
            .map(|(at, _)| from + at)
            .find(|&at| self.is_cut(text, at))
            .unwrap_or(text.len())
    }

    /// The last cut at `from` or before it, else 0.
    pub fn at_or_before(&self, text: &str, from: usize) -> usize {
        if self.added.is_none() || from == 0 {
            return 0;
        }
        let from = text.floor_char_boundary(from);
        if self.is_cut(text, from) {
            return from;
        }
        text[..from]
            .char_indices()
            .rev()
            .map(|(at, _)| at)
            .find(|&at| self.is_cut(text, at))
            .unwrap_or(0)
    }

    /// `at` is a character boundary of `text`.
    fn is_cut(&self, text: &str, at: usize) -> bool {
        let Some(next) = text[at..].chars().next() else {
            return true;
        };
        if at == 0 {
            return true;
        }
        let separates = matches!(next, ' ' | '\t' | '\n' | '\r')
            || next.is_ascii_punctuation()
            || (self.chinese && matches!(next, '\u{4E00}'..='\u{9FFF}' | '\u{3400}'..='\u{4DBF}'));
        separates
            && !self
                .added
                .iter()
                .flatten()
                .any(|token| spans(text.as_bytes(), token.as_bytes(), at))
    }
}

/// Whether an occurrence of `token` begins before `at` and ends after it.
fn spans(text: &[u8], token: &[u8], at: usize) -> bool {
    (1..token.len().min(at + 1)).any(|before| text[at - before..].starts_with(token))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::Tokenizer;
    use tokenizers::models::wordpiece::WordPiece;
    use tokenizers::normalizers::BertNormalizer;
    use tokenizers::pre_tokenizers::bert::BertPreTokenizer;

    use super::*;

    /// A small uncased BERT's with one token added.
    fn with_added(token: AddedToken, chinese: bool) -> Tokenizer {
        let vocabulary = "[UNK]\na\nb\nnew\nyork\n##a\n##b\n##york\n中\n##中\n_\n-";
        let vocabulary = WordPiece::read_bytes(vocabulary.as_bytes()).unwrap();
        let model = WordPiece::builder().vocab(vocabulary).unk_token("[UNK]".into());
        let mut tokenizer = Tokenizer::new(model.build().unwrap());
        let normalizer = BertNormalizer::new(true, chinese, None, true);
        tokenizer.with_normalizer(Some(normalizer)).unwrap();
        tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
        tokenizer.add_tokens([token]).unwrap();
        tokenizer
    }

    /// What such tokenizers may be: each with a text that a cut in the wrong place changes.
    fn tokenizers() -> Vec<(Tokenizer, &'static str)> {
        let token = |content: &str| AddedToken::from(content, false).normalized(false);
        vec![
            (with_added(token("[x y]"), true), "a [x y] 中b"),
            (with_added(token("New York").normalized(true), true), "a new york b"),
            (with_added(token("ab").single_word(true), true), "b ab_ a"),
            (
                with_added(token("ab").single_word(true).normalized(true), true),
                "a AB_ b",
            ),
            (with_added(token("[x y]"), false), "ba中b"),
        ]
    }

    fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
        tokenizer.encode(text, false).unwrap().get_ids().to_vec()
    }

    fn check_cuts(tokenizer: &Tokenizer, text: &str) {
        let (cuts, whole) = (Cuts::new(tokenizer), ids(tokenizer, text));
        for from in 0..=text.len() {
            for cut in [cuts.at_or_after(text, from), cuts.at_or_before(text, from)] {
                let pieces = [&text[..cut], &text[cut..]].map(|piece| ids(tokenizer, piece));
                assert_eq!(pieces.concat(), whole, "{text:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn no_cut_changes_a_token_whatever_tokens_are_added() {
        for (tokenizer, text) in tokenizers() {
            check_cuts(&tokenizer, text);
            let careless = Cuts {
                added: Some(Vec::new()),
                chinese: true,
            };
            let is_harmful = |at: usize| {
                let pieces = [&text[..at], &text[at..]].map(|piece| ids(&tokenizer, piece));
                careless.is_cut(text, at) && pieces.concat() != ids(&tokenizer, text)
            };
            let mut places = text.char_indices().map(|(at, _)| at);
            assert!(places.any(is_harmful), "{text:?} tells nothing");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn no_cut_of_any_text_changes_a_token(
            parts in prop::collection::vec(
                prop::sample::select(vec!["a", "b", "ab", "new york", "New York", "[x y]", "中", "_", "-", " "]), 0..12,
            ),
        ) {
            let text = parts.concat();
            for (tokenizer, _) in tokenizers() {
                check_cuts(&tokenizer, &text);
            }
        }
    }

    #[test]
    fn a_cut_never_parts_a_marker() {
        let cuts = Cuts {
            added: Some(vec!["[/DRUG]".into()]),
            chinese: true,
        };
        let text = "ab[/DRUG]cd ef";
        assert_eq!(cuts.at_or_after(text, 1), 2);
        assert_eq!(cuts.at_or_after(text, 3), 11);
        assert_eq!(cuts.at_or_before(text, 10), 2);
        assert_eq!(cuts.at_or_before(text, 1), 0);
        assert_eq!(cuts.at_or_after(text, 12), text.len());
    }

    #[test]
    fn without_the_bert_pipeline_only_the_ends_are_cuts() {
        let cuts = Cuts {
            added: None,
            chinese: false,
        };
        assert_eq!((cuts.at_or_before("a b c", 4), cuts.at_or_after("a b c", 1)), (0, 5));
    }
}
