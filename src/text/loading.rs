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

use std::collections::BTreeMap;

use serde::Deserialize;
use tokenizers::models::ModelWrapper;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{AddedToken, Tokenizer};

use super::MARKERS;
use super::configuration::{Config, TokenizerFiles};
use super::error::TokenizerError;
use super::guard::guarded;

/// A tokenizer that neither pads nor truncates, and the tokens to put around its output.
pub(super) struct Loaded {
    pub tokenizer: Tokenizer,
    pub cls: u32,
    pub sep: u32,
    /// The file with the vocabulary, for messages.
    pub file: String,
    /// What the files leave open.
    pub doubts: Vec<String>,
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
            if config.is_bert {
                doubts.extend(normalize_as_bert(&mut tokenizer, file, &config)?);
            }
            (file, tokenizer)
        }
        (None, Some((file, bytes))) => (file, from_vocabulary(file, bytes, &config)?),
        (None, None) => return Err(TokenizerError::NoFiles),
    };

    let present: Vec<AddedToken> = tokenizer.get_added_tokens_decoder().into_values().collect();
    let known = |token: &AddedToken| present.iter().any(|other| other.content == token.content);
    // A decoder also says how a token is looked for; added_tokens.json leaves that to tokenizer.json.
    let stated = config.added.values().filter(|token| match config.has_decoder {
        true => !present.contains(token),
        false => !known(token),
    });
    let is_added = |token: &AddedToken| config.added.values().any(|other| other.content == token.content);
    let named = config.named.iter().chain(&config.extra);
    let named = named.filter(|token| !known(token) && !is_added(token));
    add(&mut tokenizer, file, stated.chain(named).cloned().collect())?;
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
    if markers {
        let present = tokenizer.get_added_tokens_decoder();
        let missing = MARKERS
            .iter()
            .filter(|marker| !present.values().any(|token| token.content == **marker));
        let missing = missing.map(|marker| AddedToken::from(*marker, true)).collect();
        add(&mut tokenizer, file, missing)?;
    }

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
        tokenizer,
    })
}

fn from_json(file: &str, bytes: &[u8]) -> Result<Tokenizer, TokenizerError> {
    let mut tokenizer =
        Tokenizer::from_bytes(bytes).map_err(|error| TokenizerError::malformed(file, &error.to_string()))?;
    match tokenizer.get_model() {
        ModelWrapper::WordPiece(model) => require_unknown_token(file, &tokenizer, &model.unk_token)?,
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
    // Texts are cut by `Tokenizer::tokenize`, which must see what lies beyond the cut.
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(None)
        .map_err(|error| TokenizerError::malformed(file, &error.to_string()))?;

    #[derive(Deserialize)]
    struct Stated {
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
    for token in stated.added_tokens {
        let found = tokenizer.token_to_id(&token.content);
        if found != Some(token.id) {
            return Err(id_mismatch(file, &token.content, token.id, found));
        }
    }
    Ok(tokenizer)
}

/// Gives the tokenizer the configuration's normalizer, and says what is doubtful about that.
fn normalize_as_bert(tokenizer: &mut Tokenizer, file: &str, config: &Config) -> Result<Vec<String>, TokenizerError> {
    let mut doubts = Vec::new();
    let mut odd = Vec::new();
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
                odd.push("\"normalizer\" that keeps control characters");
            }
            tokenizer
                .with_normalizer(Some(wanted))
                .map_err(|error| TokenizerError::malformed(file, &error.to_string()))?;
        }
        _ => odd.push("\"normalizer\" other than BertNormalizer"),
    }
    if !matches!(
        tokenizer.get_pre_tokenizer(),
        Some(PreTokenizerWrapper::BertPreTokenizer(_))
    ) {
        odd.push("\"pre_tokenizer\" other than BertPreTokenizer");
    }
    if !odd.is_empty() {
        doubts.push(format!(
            "{file}: it has a {}, which is used, as by transformers 4; transformers 5 takes BertTokenizer's own instead: if the \
             model was trained with that, every probability is wrong; {{\"tokenizer_class\": \"PreTrainedTokenizerFast\"}} in \
             tokenizer_config.json says that {file} is meant",
            odd.join(" and a ")
        ));
    }
    Ok(doubts)
}

fn from_vocabulary(file: &str, bytes: &[u8], config: &Config) -> Result<Tokenizer, TokenizerError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| TokenizerError::malformed(file, &format!("not UTF-8 after byte {}", error.valid_up_to())))?;
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    // Lines end as in Python's text mode, and only the line's end is stripped: `trim` would eat
    // tokens that are themselves spaces.
    let lines = text.replace("\r\n", "\n").replace('\r', "\n");
    let lines = lines.strip_suffix('\n').unwrap_or(&lines);
    if lines.is_empty() {
        return Err(TokenizerError::malformed(file, "is empty, expected one token a line"));
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
    Ok(tokenizer)
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
