//! From tokenizer files to a tokenizer: `tokenizer.json`, else `vocab.txt`, with what
//! `tokenizer_config.json` adds (or, before it had `added_tokens_decoder`, `special_tokens_map.json` and
//! `added_tokens.json`), in the order in which Hugging Face's `BertTokenizer` does it.
//!
//! Where `tokenizer.json` and that class disagree about case, accents and Chinese characters, the class wins, as in
//! transformers 4 (`BertTokenizerFast.__init__` replaces the normalizer) and 5 (it builds the tokenizer anew from the
//! vocabulary). What the two read differently is a doubt.
//!
//! Order matters because an added token that is not in the vocabulary takes the next free id, and
//! ids are rows of a trained embedding. Where files state an id and the tokenizer would give
//! another, loading fails: the original would go on with the wrong rows.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use serde_json::Value;
use tokenizers::models::ModelWrapper;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{AddedToken, PaddingDirection, Tokenizer};

use super::MARKERS;
use super::configuration::{Config, TokenizerFiles};
use super::error::TokenizerError;
use crate::guard::guarded;

/// A `tokenizer.json` with the entity markers as special tokens, where the model was trained with them and the file lacks them.
///
/// # Errors
/// What is wrong with the file.
pub fn with_markers_added(tokenizer_json: &[u8]) -> Result<String, String> {
    let add = || -> tokenizers::Result<String> {
        let mut tokenizer = Tokenizer::from_bytes(tokenizer_json)?;
        tokenizer.add_special_tokens(MARKERS.map(|marker| AddedToken::from(marker, true)))?;
        tokenizer.to_string(false)
    };
    let unreadable = |reason| format!("the tokenizers library cannot read it ({reason}); copy or download it again");
    guarded(add).map_err(unreadable)?.map_err(|error| error.to_string())
}

/// A tokenizer that neither pads nor truncates, and the tokens to put around its output.
pub(super) struct Loaded {
    pub tokenizer: Tokenizer,
    pub cls: u32,
    pub sep: u32,
    /// The file with the vocabulary, for messages.
    pub file: String,
    /// What the files leave open.
    pub doubts: Vec<String>,
    /// There are no markers, or any file has one of them.
    pub files_have_markers: bool,
}

pub(super) fn load(files: &TokenizerFiles, markers: bool) -> Result<Loaded, TokenizerError> {
    let (file, _) = files
        .tokenizer_json
        .or(files.vocab_txt)
        .ok_or(TokenizerError::NoFiles)?;
    guarded(|| load_unguarded(files, markers)).unwrap_or_else(|reason| Err(unreadable(file, &reason)))
}

fn load_unguarded(files: &TokenizerFiles, markers: bool) -> Result<Loaded, TokenizerError> {
    let config = Config::read(files)?;
    let mut doubts = config.doubts.clone();
    let (file, mut tokenizer) = match (files.tokenizer_json, files.vocab_txt) {
        (Some((file, bytes)), _) => {
            let mut tokenizer = from_json(file, bytes)?;
            doubts.extend(left_padding(file, &tokenizer, &config));
            // Texts are cut by `Tokenizer::tokenize`, which must see what lies beyond the cut.
            tokenizer.with_padding(None);
            if config.is_bert {
                doubts.extend(normalize_as_bert(&mut tokenizer, file, &config)?);
            } else if !config.is_known {
                let done = format!("{file} is followed as it stands");
                doubts.extend(unknown_class(&config, &done, "PreTrainedTokenizerFast"));
            }
            (file, tokenizer)
        }
        (None, Some((file, bytes))) => {
            let (tokenizer, odd) = from_vocabulary(file, bytes, &config)?;
            doubts.extend(left_padding(file, &tokenizer, &config));
            doubts.extend(odd);
            (file, tokenizer)
        }
        (None, None) => return Err(TokenizerError::NoFiles),
    };

    add_stated(&mut tokenizer, file, &config)?;
    let files_have_markers = !markers || add_markers(&mut tokenizer, file, &config, &mut doubts)?;
    let (cls, sep) = match files.tokenizer_json {
        Some(_) => surrounding_tokens(file, &tokenizer)?,
        None => {
            let id = |token: &str| {
                tokenizer.token_to_id(token).ok_or_else(|| {
                    TokenizerError::malformed(
                        file,
                        &format!("{token:?} is not in the vocabulary; is this the model's own file?"),
                    )
                })
            };
            (id(&config.cls.content)?, id(&config.sep.content)?)
        }
    };
    Ok(Loaded {
        cls,
        sep,
        file: file.to_owned(),
        doubts,
        files_have_markers,
        tokenizer,
    })
}

/// Adds the tokens that the configuration lists and the tokenizer lacks, each with the id that is stated.
fn add_stated(tokenizer: &mut Tokenizer, file: &str, config: &Config) -> Result<(), TokenizerError> {
    let present: HashSet<AddedToken> = tokenizer.get_added_tokens_decoder().into_values().collect();
    let contents: HashSet<&str> = present.iter().map(|token| token.content.as_str()).collect();
    let known = |token: &AddedToken| contents.contains(token.content.as_str());
    // A decoder also says how a token is looked for; added_tokens.json leaves that to tokenizer.json.
    let stated = config.added.values().filter(|token| match config.has_decoder {
        true => !present.contains(token),
        false => !known(token),
    });
    let added: HashSet<&str> = config.added.values().map(|token| token.content.as_str()).collect();
    let is_added = |token: &AddedToken| added.contains(token.content.as_str());
    let named = config.named.iter().chain(&config.extra);
    let named = named.filter(|token| !known(token) && !is_added(token));
    add(tokenizer, file, stated.chain(named).cloned().collect())?;
    for (&id, token) in &config.added {
        if tokenizer.token_to_id(&token.content) != Some(id) {
            return Err(id_mismatch(
                &config.added_file,
                &token.content,
                id,
                tokenizer.token_to_id(&token.content),
            ));
        }
    }
    Ok(())
}

/// Makes the entity markers special tokens where they are not, and says what is doubtful about that. Whether a file has any of them.
fn add_markers(
    tokenizer: &mut Tokenizer,
    file: &str,
    config: &Config,
    doubts: &mut Vec<String>,
) -> Result<bool, TokenizerError> {
    if config.split_special_tokens {
        doubts.push(format!(
            "{}: its \"split_special_tokens\" is true, with which transformers takes the markers apart like any text, and here they \
             are one token each: if the model was trained with markers taken apart, every probability is wrong; state false if not",
            config.file
        ));
    }
    let present = tokenizer.get_added_tokens_decoder();
    let missing = MARKERS
        .iter()
        .filter(|marker| !present.values().any(|token| token.content == **marker));
    let missing: Vec<AddedToken> = missing.map(|marker| AddedToken::from(*marker, true)).collect();
    let vocabulary = missing
        .iter()
        .find(|marker| tokenizer.token_to_id(&marker.content).is_some());
    if let Some(AddedToken { content, .. }) = vocabulary {
        doubts.push(format!(
            "{file}: its vocabulary has {content:?}, which no file lists as a special token: transformers takes it apart like any \
             text, and here it is one token: if the model was trained with markers taken apart, every probability is wrong; list \
             the markers in \"additional_special_tokens\" of tokenizer_config.json if not"
        ));
    }
    if vocabulary.is_none() && !missing.is_empty() && missing.len() < MARKERS.len() {
        let names: Vec<&str> = missing.iter().map(|marker| marker.content.as_str()).collect();
        doubts.push(format!(
            "{file}: of the entity markers no file lists {}, beside the others: transformers takes what is not listed apart like any \
             text, and here it is one token with an id of its own: if the model was trained with these taken apart, every probability \
             is wrong; list all four in \"additional_special_tokens\" of tokenizer_config.json if not",
            names.join(" and ")
        ));
    }
    let files_have_markers = missing.len() < MARKERS.len() || vocabulary.is_some();
    add(tokenizer, file, missing)?;
    Ok(files_have_markers)
}

fn from_json(file: &str, bytes: &[u8]) -> Result<Tokenizer, TokenizerError> {
    #[derive(Deserialize)]
    struct Stated {
        #[serde(default)]
        normalizer: Value,
        #[serde(default)]
        added_tokens: Vec<StatedToken>,
    }
    #[derive(Deserialize)]
    struct StatedToken {
        id: u32,
        content: String,
    }
    let stated: Stated =
        serde_json::from_slice(bytes).map_err(|error| TokenizerError::malformed(file, &error.to_string()))?;
    // The library takes memory for whatever a table of eight letters claims to need.
    if has_type(&stated.normalizer, "Precompiled") {
        return Err(TokenizerError::malformed(
            file,
            "\"normalizer\": expected BERT's, found Precompiled, which is SentencePiece's",
        ));
    }
    let growth = growth(&stated.normalizer);
    if growth > MOST_GROWTH {
        return Err(TokenizerError::malformed(
            file,
            &format!("\"normalizer\": expected BERT's, found replacements that may make a text {growth} times as long"),
        ));
    }
    let mut tokenizer =
        Tokenizer::from_bytes(bytes).map_err(|error| TokenizerError::malformed(file, &error.to_string()))?;
    match tokenizer.get_model() {
        ModelWrapper::WordPiece(model) => {
            require_unknown_token(file, &tokenizer, &model.unk_token)?;
            // The time that a word takes grows faster than with the square of its letters.
            let longest = model.max_input_chars_per_word;
            if longest > MOST_CHARS_OF_A_WORD {
                return Err(TokenizerError::malformed(
                    file,
                    &format!(
                        "\"max_input_chars_per_word\": expected at most {MOST_CHARS_OF_A_WORD}, found {longest}; BERT's is {BERT_MAX_INPUT_CHARS_PER_WORD}"
                    ),
                ));
            }
        }
        other => {
            let found = match other {
                ModelWrapper::BPE(_) => "BPE",
                ModelWrapper::WordLevel(_) => "WordLevel",
                _ => "Unigram",
            };
            return Err(TokenizerError::malformed(
                file,
                &format!("\"model\": expected WordPiece, as BERT has, found {found}"),
            ));
        }
    }
    if tokenizer
        .get_truncation()
        .is_some_and(|t| t.direction == tokenizers::TruncationDirection::Left)
    {
        return Err(TokenizerError::malformed(
            file,
            "\"truncation\": direction \"Left\" is not supported, expected \"Right\"",
        ));
    }
    // As with padding.
    tokenizer
        .with_truncation(None)
        .map_err(|error| TokenizerError::malformed(file, &error.to_string()))?;
    for token in stated.added_tokens {
        let found = tokenizer.token_to_id(&token.content);
        if found != Some(token.id) {
            return Err(id_mismatch(file, &token.content, token.id, found));
        }
    }
    Ok(tokenizer)
}

/// Honest ones replace a few characters by as many, or one by a few.
const MOST_GROWTH: usize = 1000;

/// How many times as long a text may become by all of a normalizer's replacements, one after another.
fn growth(normalizer: &Value) -> usize {
    match normalizer {
        Value::Object(members) => {
            let length = |value: &Value| value.as_str().map_or(0, str::len);
            let own = match members.get("type").and_then(Value::as_str) {
                Some("Replace") => {
                    let pattern = members.get("pattern").map_or(0, |pattern| length(&pattern["String"]));
                    members.get("content").map_or(0, length).div_ceil(pattern.max(1))
                }
                _ => 1,
            };
            let parts = members.values().map(growth);
            parts.fold(own.max(1), usize::saturating_mul)
        }
        Value::Array(parts) => parts.iter().map(growth).fold(1, usize::saturating_mul),
        _ => 1,
    }
}

/// Whether `value` or a part of it is an object of that `type`.
fn has_type(value: &Value, wanted: &str) -> bool {
    match value {
        Value::Object(members) => {
            members.get("type").is_some_and(|own| own == wanted) || members.values().any(|part| has_type(part, wanted))
        }
        Value::Array(parts) => parts.iter().any(|part| has_type(part, wanted)),
        _ => false,
    }
}

/// What there is to say of padding on the left. A text by itself, and one that is padded on the right, gets the positions that it has
/// here; one that is padded on the left, as the model card's script pads every text to the full length, gets the last ones.
fn left_padding(file: &str, tokenizer: &Tokenizer, config: &Config) -> Option<String> {
    let by_json = tokenizer
        .get_padding()
        .is_some_and(|padding| matches!(padding.direction, PaddingDirection::Left));
    let (file, words) = match config.padding_side.as_deref() {
        // The configuration counts more.
        Some("left") => (config.file.as_str(), "\"padding_side\" is \"left\""),
        None if by_json => (file, "\"padding\" has the direction \"Left\""),
        _ => return None,
    };
    Some(format!(
        "{file}: its {words}, and here a text's first token is at position 0 whatever it is padded with: if the model was trained or \
         judged on texts that were padded on the left (padding=\"max_length\"), every probability is wrong; compare with the original's \
         answers, and state \"padding_side\": \"right\" in tokenizer_config.json if they are the same"
    ))
}

/// Gives the tokenizer the configuration's normalizer, and says what is doubtful about that.
fn normalize_as_bert(tokenizer: &mut Tokenizer, file: &str, config: &Config) -> Result<Vec<String>, TokenizerError> {
    let mut doubts = Vec::new();
    let mut odd: Vec<String> = Vec::new();
    match tokenizer.get_normalizer() {
        Some(NormalizerWrapper::BertNormalizer(own)) => {
            let wanted = config.normalizer(own.clean_text);
            // Where neither file states it, lower-casing takes accents along.
            let strips = wanted.strip_accents.unwrap_or(wanted.lowercase);
            for (key, own, wanted) in [
                ("do_lower_case", own.lowercase, wanted.lowercase),
                ("strip_accents", own.strip_accents.unwrap_or(strips), strips),
                (
                    "tokenize_chinese_chars",
                    own.handle_chinese_chars,
                    wanted.handle_chinese_chars,
                ),
            ] {
                // What is stated is meant.
                if own != wanted && !config.stated.contains(key) {
                    doubts.push(format!(
                        "{file}: its normalizer has {key:?} {own}, but no tokenizer_config.json states it, and transformers' \
                         BertTokenizer then takes {wanted}, as is done here: if the model was trained otherwise, every \
                         probability is wrong; write {{{key:?}: {own}}} into tokenizer_config.json then, else {{{key:?}: {wanted}}}"
                    ));
                }
            }
            if !own.clean_text {
                odd.push("\"normalizer\" that keeps control characters".to_owned());
            }
            tokenizer
                .with_normalizer(Some(wanted))
                .map_err(|error| TokenizerError::malformed(file, &error.to_string()))?;
        }
        _ => odd.push("\"normalizer\" other than BertNormalizer".to_owned()),
    }
    if !matches!(
        tokenizer.get_pre_tokenizer(),
        Some(PreTokenizerWrapper::BertPreTokenizer(_))
    ) {
        odd.push("\"pre_tokenizer\" other than BertPreTokenizer".to_owned());
    }
    if let ModelWrapper::WordPiece(model) = tokenizer.get_model() {
        let (longest, prefix, unk) = (
            model.max_input_chars_per_word,
            &model.continuing_subword_prefix,
            &model.unk_token,
        );
        if longest != BERT_MAX_INPUT_CHARS_PER_WORD {
            odd.push(format!(
                "\"max_input_chars_per_word\" of {longest}, not {BERT_MAX_INPUT_CHARS_PER_WORD}"
            ));
        }
        if prefix != CONTINUING_SUBWORD_PREFIX {
            odd.push(format!(
                "\"continuing_subword_prefix\" {prefix:?}, not {CONTINUING_SUBWORD_PREFIX:?}"
            ));
        }
        if *unk != config.unk.content {
            odd.push(format!("\"unk_token\" {unk:?}, not {:?}", config.unk.content));
        }
    }
    let (cls, sep) = surrounding_tokens(file, tokenizer)?;
    for (id, key, stated) in [(cls, "cls_token", &config.cls), (sep, "sep_token", &config.sep)] {
        let own = tokenizer.id_to_token(id).unwrap_or_default();
        if own != stated.content {
            odd.push(format!(
                "\"post_processor\" with {own:?} for the {key}, not {:?}",
                stated.content
            ));
        }
    }
    if !odd.is_empty() {
        doubts.push(format!(
            "{file}: it has a {}, which is used, as by transformers 4; transformers 5 takes tokenizer_config.json's and BertTokenizer's own \
             instead: if the model was trained with that, every probability is wrong; {{\"tokenizer_class\": \"PreTrainedTokenizerFast\"}} in \
             tokenizer_config.json says that {file} is meant",
            odd.join(" and a ")
        ));
    }
    Ok(doubts)
}

/// That the stated class may split texts in a way of its own. `done`: what is done here, as the class `same` does.
fn unknown_class(config: &Config, done: &str, same: &str) -> Option<String> {
    let class = config.class.as_ref()?;
    Some(format!(
        "{}: its \"tokenizer_class\" is {class:?}, and {done}: if that class splits texts otherwise, every probability is wrong; \
         compare token ids with the original's, and state {same:?} if they are the same",
        config.file
    ))
}

/// BERT's values in `tokenizer.json`'s "model".
pub(super) const BERT_MAX_INPUT_CHARS_PER_WORD: usize = 100;
pub(super) const CONTINUING_SUBWORD_PREFIX: &str = "##";
/// More than this would let one word take too long.
const MOST_CHARS_OF_A_WORD: usize = 1000;

/// The tokenizer of a `vocab.txt`, and what is doubtful about it.
fn from_vocabulary(file: &str, bytes: &[u8], config: &Config) -> Result<(Tokenizer, Vec<String>), TokenizerError> {
    let mut doubts = Vec::new();
    if !config.is_bert {
        let done = format!("{file} is read as BERT's WordPiece");
        doubts.extend(unknown_class(config, &done, "BertTokenizer"));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| TokenizerError::malformed(file, &format!("not UTF-8 after byte {}", error.valid_up_to())))?;
    let text = match text.strip_prefix('\u{FEFF}') {
        Some(rest) => {
            doubts.push(format!(
                "{file}: it begins with a byte order mark, which is left out here and part of the first token for transformers, which \
                 then gives special tokens other ids: if the model was trained with this file, every probability is wrong; save it \
                 without the mark if not"
            ));
            rest
        }
        None => text,
    };
    // Lines end as in Python's text mode, and only the line's end is stripped: `trim` would eat
    // tokens that are themselves spaces.
    let lines = text.replace("\r\n", "\n").replace('\r', "\n");
    let lines = lines.strip_suffix('\n').unwrap_or(&lines);
    if lines.is_empty() {
        return Err(TokenizerError::malformed(file, "is empty, expected one token a line"));
    }
    let ends_in_space = |line: &str| !line.trim_end().is_empty() && line.trim_end() != line;
    if let Some((index, line)) = lines.split('\n').enumerate().find(|(_, line)| ends_in_space(line)) {
        doubts.push(format!(
            "{file}:{}: {line:?} ends in a space, which is part of the token here and for transformers 4, so that no text has it, and \
             not for 5: if the model was trained with that, probabilities are wrong; remove the space then",
            index + 1
        ));
    }
    let mut vocabulary =
        WordPiece::read_bytes(&[]).map_err(|error| TokenizerError::malformed(file, &error.to_string()))?;
    for (id, token) in (0u32..).zip(lines.split('\n')) {
        vocabulary.insert(token.to_owned(), id);
    }
    let model = WordPiece::builder()
        .vocab(vocabulary)
        .unk_token(config.unk.content.clone())
        .build()
        .map_err(|error| TokenizerError::malformed(file, &error.to_string()))?;
    let mut tokenizer = Tokenizer::new(model);
    require_unknown_token(file, &tokenizer, &config.unk.content)?;
    tokenizer
        .with_normalizer(Some(config.normalizer(true)))
        .map_err(|error| TokenizerError::malformed(file, &error.to_string()))?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    Ok((tokenizer, doubts))
}

/// Without it the first unknown word of a run would be the place where the run fails.
fn require_unknown_token(file: &str, tokenizer: &Tokenizer, token: &str) -> Result<(), TokenizerError> {
    match tokenizer.get_model() {
        ModelWrapper::WordPiece(model) if tokenizers::Model::token_to_id(model, token).is_some() => Ok(()),
        _ => Err(TokenizerError::malformed(
            file,
            &format!("the unknown token {token:?} is not in the vocabulary"),
        )),
    }
}

/// Adds tokens as Hugging Face does, and refuses an id that is taken: repeated lines in a
/// vocabulary leave it with fewer entries than its largest id says, and the count is what gives
/// the next id.
fn add(tokenizer: &mut Tokenizer, file: &str, tokens: Vec<AddedToken>) -> Result<(), TokenizerError> {
    let taken: BTreeMap<u32, String> = tokenizer
        .get_vocab(true)
        .into_iter()
        .map(|(token, id)| (id, token))
        .collect();
    let contents: Vec<String> = tokens.iter().map(|token| token.content.clone()).collect();
    tokenizer
        .add_tokens(tokens)
        .map_err(|error| TokenizerError::malformed(file, &error.to_string()))?;
    for content in contents {
        let id = tokenizer.token_to_id(&content);
        if let Some((id, other)) = id
            .and_then(|id| taken.get_key_value(&id))
            .filter(|(_, other)| **other != content)
        {
            return Err(TokenizerError::malformed(
                file,
                &format!(
                    "id {id} for {content:?} is already that of {other:?}; are there repeated or missing entries?"
                ),
            ));
        }
    }
    Ok(())
}

/// The ids that the post-processor puts before and after a text.
fn surrounding_tokens(file: &str, tokenizer: &Tokenizer) -> Result<(u32, u32), TokenizerError> {
    let empty = tokenizer
        .encode_fast("", true)
        .map_err(|error| TokenizerError::malformed(file, &error.to_string()))?;
    match *empty.get_ids() {
        [cls, sep] => Ok((cls, sep)),
        ref ids => Err(TokenizerError::malformed(
            file,
            &format!(
                "\"post_processor\": expected [CLS] before and [SEP] after a text, found {} tokens added",
                ids.len()
            ),
        )),
    }
}

/// After a panic of the library.
fn unreadable(file: &str, reason: &str) -> TokenizerError {
    let reason = format!(
        "the tokenizers library cannot read it ({reason}); it is damaged or not a BERT's: copy or download the tokenizer's \
         files again"
    );
    TokenizerError::malformed(file, &reason)
}

fn id_mismatch(file: &str, token: &str, stated: u32, found: Option<u32>) -> TokenizerError {
    let found = found.map_or("none".to_owned(), |id| id.to_string());
    TokenizerError::malformed(
        file,
        &format!("states id {stated} for {token:?}, the vocabulary gives {found}; are the files from one model?"),
    )
}
