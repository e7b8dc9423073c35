//! A WordPiece vocabulary of one's own: made of the training texts by the `tokenizers` crate's trainer.

use std::collections::BTreeSet;

use tokenizers::{
    AddedToken, NormalizedString, Normalizer as _, PreTokenizedString, PreTokenizer as _, Trainer as _,
    models::wordpiece::{WordPiece, WordPieceTrainer},
    normalizers::BertNormalizer,
    pre_tokenizers::bert::BertPreTokenizer,
};

use super::loading::{BERT_MAX_INPUT_CHARS_PER_WORD, CONTINUING_SUBWORD_PREFIX};

/// What BERT's tokenizer puts around and into texts.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
/// Characters of the alphabet at most: the rest, which are rare, become `[UNK]`.
const ALPHABET: usize = 200;

/// At most `size` word pieces for `texts`, by id. The same texts give the same vocabulary. An error says which size would do.
pub fn vocabulary(texts: &[&str], size: usize, lowercase: bool) -> Result<Vec<String>, String> {
    let failed = |error: tokenizers::Error| error.to_string();
    let normalizer = BertNormalizer::new(true, true, None, lowercase);
    let words = |text: &str| -> tokenizers::Result<Vec<String>> {
        let mut normalized = NormalizedString::from(text);
        normalizer.normalize(&mut normalized)?;
        let mut parts = PreTokenizedString::from(normalized);
        BertPreTokenizer.pre_tokenize(&mut parts)?;
        let parts = parts.get_splits(tokenizers::OffsetReferential::Original, tokenizers::OffsetType::Byte);
        // Longer ones are unknown to the tokenizer, whatever pieces there are, and merging theirs takes as often as long.
        let parts = parts.into_iter().map(|(part, _, _)| part);
        let parts = parts.filter(|part| part.chars().nth(BERT_MAX_INPUT_CHARS_PER_WORD).is_none());
        Ok(parts.map(str::to_owned).collect())
    };
    let mut counts: std::collections::BTreeMap<char, u64> = std::collections::BTreeMap::new();
    for text in texts {
        for character in words(text).map_err(failed)?.iter().flat_map(|word| word.chars()) {
            *counts.entry(character).or_default() += 1;
        }
    }
    let mut alphabet: Vec<(u64, char)> = counts
        .into_iter()
        .map(|(character, count)| (count, character))
        .collect();
    alphabet.sort_by(|a, b| b.cmp(a));
    alphabet.truncate(ALPHABET);
    let alphabet: BTreeSet<char> = alphabet.into_iter().map(|(_, character)| character).collect();
    // The trainer numbers what it first meets in the order of a hash map; all that it can meet before its first
    // merge is numbered here, so that the vocabulary depends on the texts alone.
    let inside = alphabet
        .iter()
        .map(|character| format!("{CONTINUING_SUBWORD_PREFIX}{character}"));
    let first = SPECIAL.into_iter().map(str::to_owned);
    let first = first.chain(alphabet.iter().map(char::to_string)).chain(inside);
    let first: Vec<AddedToken> = first.map(|token| AddedToken::from(token, true)).collect();
    if size <= first.len() {
        return Err(format!(
            "expected more than {}, the characters of the texts twice, found {size}",
            first.len()
        ));
    }
    let mut trainer: WordPieceTrainer = WordPieceTrainer::builder()
        .special_tokens(first)
        .limit_alphabet(alphabet.len())
        .vocab_size(size)
        .min_frequency(2)
        .show_progress(false)
        .build();
    trainer.feed(texts.iter(), words).map_err(failed)?;
    let mut model = WordPiece::default();
    trainer.train(&mut model).map_err(failed)?;
    let mut pieces: Vec<(u32, String)> = tokenizers::Model::get_vocab(&model)
        .into_iter()
        .map(|(piece, id)| (id, piece))
        .collect();
    pieces.sort();
    Ok(pieces.into_iter().map(|(_, piece)| piece).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_texts_give_the_same_vocabulary() {
        let texts = [
            "Metformin caused lactic acidosis, severe acidosis.",
            "Lactic acidosis after metformin: 2 cases.",
        ];
        let repeated: Vec<&str> = texts.iter().cycle().take(200).copied().collect();
        let first = vocabulary(&repeated, 120, true).unwrap();
        assert!(first.len() <= 120);
        assert_eq!(&first[..5], SPECIAL);
        assert!(
            first.contains(&"acidosis".to_owned()) && first.contains(&"metformin".to_owned()),
            "{first:?}"
        );
        assert!(!first.iter().any(|piece| piece.starts_with("Met")));
        for _ in 0..4 {
            assert_eq!(vocabulary(&repeated, 120, true).unwrap(), first);
        }
        assert!(
            vocabulary(&repeated, 20, true)
                .unwrap_err()
                .contains("expected more than")
        );
    }
}
