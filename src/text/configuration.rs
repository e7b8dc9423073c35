//! What the files beside a vocabulary state: `tokenizer_config.json`, and before that had `added_tokens_decoder`,
//! `special_tokens_map.json` and `added_tokens.json`. What is made of it is `loading`'s.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokenizers::AddedToken;
use tokenizers::normalizers::BertNormalizer;

use super::error::TokenizerError;

/// The contents of a checkpoint's tokenizer files, each with its name for messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenizerFiles<'a> {
    pub tokenizer_json: Option<(&'a str, &'a [u8])>,
    /// Read only where there is no `tokenizer_json`.
    pub vocab_txt: Option<(&'a str, &'a [u8])>,
    pub tokenizer_config: Option<(&'a str, &'a [u8])>,
    /// Ids of tokens that the vocabulary lacks, read where `tokenizer_config` has no `added_tokens_decoder`.
    pub added_tokens: Option<(&'a str, &'a [u8])>,
    /// The special tokens by name, read in the same case.
    pub special_tokens_map: Option<(&'a str, &'a [u8])>,
}

/// What is read from `tokenizer_config.json` and the files that it has taken the place of, with `BertTokenizer`'s defaults.
pub(super) struct Config {
    /// The tokenizer's class is `BertTokenizer`, as it is where none is stated, or a copy of it.
    pub is_bert: bool,
    /// That, or a class that does what `tokenizer.json` says.
    pub is_known: bool,
    /// The tokenizer's class, where one is stated.
    pub class: Option<String>,
    /// The name of `tokenizer_config.json`.
    pub file: String,
    /// The stated `padding_side`.
    pub padding_side: Option<String>,
    pub split_special_tokens: bool,
    /// Which keys `tokenizer_config.json` has.
    pub stated: BTreeSet<String>,
    pub do_lower_case: bool,
    pub strip_accents: Option<bool>,
    pub tokenize_chinese_chars: bool,
    pub cls: AddedToken,
    pub sep: AddedToken,
    pub unk: AddedToken,
    /// `added_tokens_decoder` or `added_tokens.json`, by id.
    pub added: BTreeMap<u32, AddedToken>,
    /// Where these are from, for messages.
    pub added_file: String,
    pub has_decoder: bool,
    /// The named special tokens, in the order in which Hugging Face adds missing ones.
    pub named: Vec<AddedToken>,
    /// `additional_special_tokens`, or `extra_special_tokens` as newer versions write.
    pub extra: Vec<AddedToken>,
    /// What the files leave open.
    pub doubts: Vec<String>,
}

impl Config {
    pub fn normalizer(&self, clean_text: bool) -> BertNormalizer {
        let (accents, lowercase) = (self.strip_accents, self.do_lower_case);
        BertNormalizer::new(clean_text, self.tokenize_chinese_chars, accents, lowercase)
    }

    pub fn read(files: &TokenizerFiles) -> Result<Self, TokenizerError> {
        let config = Stated::read(files.tokenizer_config)?;
        if config.json.get("truncation_side").is_some_and(|side| side == "left") {
            return Err(TokenizerError::malformed(
                config.file,
                "\"truncation_side\": \"left\" is not supported, expected \"right\"",
            ));
        }
        let decoder = config.decoder()?;
        // A configuration with a list of its own leaves the older files out.
        let (map, older) = match decoder {
            Some(_) => (Stated::read(None)?, None),
            None => (Stated::read(files.special_tokens_map)?, files.added_tokens),
        };
        let named = |key: &str, default: &str| -> Result<AddedToken, TokenizerError> {
            let stated = map
                .token(key)?
                .map_or_else(|| config.token(key), |token| Ok(Some(token)))?;
            Ok(stated.unwrap_or_else(|| AddedToken::from(default, true)))
        };
        let (unk, sep, cls) = (
            named("unk_token", "[UNK]")?,
            named("sep_token", "[SEP]")?,
            named("cls_token", "[CLS]")?,
        );
        let (pad, mask) = (named("pad_token", "[PAD]")?, named("mask_token", "[MASK]")?);
        let named = vec![unk.clone(), sep.clone(), pad, cls.clone(), mask];
        let mut extra: Vec<AddedToken> = Vec::new();
        let mut contents: HashSet<String> = HashSet::new();
        let mut doubts = Vec::new();
        for (source, tokens) in [(&config, config.tokens()?), (&map, map.tokens()?)] {
            let count = extra.len();
            for token in tokens {
                if contents.insert(token.content.clone()) {
                    extra.push(token);
                }
            }
            if count > 0 && extra.len() > count {
                doubts.push(format!(
                    "{}: its additional_special_tokens has {:?}, which {} does not list: transformers 4 takes both lists, as is \
                     done here, and 5 the latter alone; if the model was trained with that, token ids may be wrong; \
                     write one list into both",
                    source.file, extra[count].content, config.file
                ));
            }
        }
        if EXTRA_KEYS.iter().all(|key| config.json.get(*key).is_some_and(has_any)) {
            doubts.push(format!(
                "{}: it has both {} and {}: as transformers 4 takes tokens of both lists, they are taken here, and transformers 5 takes \
                 the latter alone; if the model was trained with that, token ids may be wrong; write one list",
                config.file, EXTRA_KEYS[0], EXTRA_KEYS[1]
            ));
        }
        let is_special =
            |content: &str| contents.contains(content) || named.iter().any(|token| token.content == content);
        let has_decoder = decoder.is_some();
        let (added_file, added) = match (decoder, older) {
            (Some(added), _) => (config.file, added),
            (None, Some((file, _))) => (file, Stated::read(older)?.ids(is_special)?),
            (None, None) => ("", BTreeMap::new()),
        };
        let class = config.json.get("tokenizer_class").and_then(Value::as_str);
        Ok(Config {
            // PreTrainedTokenizerFast, TokenizersBackend and what is not known go by tokenizer.json alone.
            is_bert: class.is_none_or(is_berts),
            is_known: class.is_none_or(|class| is_berts(class) || BY_TOKENIZER_JSON.contains(&class)),
            class: class.map(str::to_owned),
            file: config.file.to_owned(),
            padding_side: config
                .json
                .get("padding_side")
                .and_then(Value::as_str)
                .map(str::to_owned),
            split_special_tokens: config.flag("split_special_tokens")?.unwrap_or(false),
            do_lower_case: config.flag("do_lower_case")?.unwrap_or(true),
            strip_accents: config.flag("strip_accents")?,
            tokenize_chinese_chars: config.flag("tokenize_chinese_chars")?.unwrap_or(true),
            added_file: added_file.to_owned(),
            has_decoder,
            doubts,
            stated: config.json.keys().cloned().collect(),
            cls,
            sep,
            unk,
            added,
            named,
            extra,
        })
    }
}

/// The lists of special tokens that have no name, by their older key and their newer one.
const EXTRA_KEYS: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

fn has_any(tokens: &Value) -> bool {
    match tokens {
        Value::Array(tokens) => !tokens.is_empty(),
        Value::Object(tokens) => !tokens.is_empty(),
        _ => false,
    }
}

/// Tokenizers that are copies of BERT's, besides those whose names end in `BertTokenizer`.
const COPIES: [&str; 7] = [
    "ElectraTokenizer",
    "LayoutLMTokenizer",
    "LxmertTokenizer",
    "RealmTokenizer",
    "DPRContextEncoderTokenizer",
    "DPRQuestionEncoderTokenizer",
    "DPRReaderTokenizer",
];

/// Those that do what `tokenizer.json` says.
const BY_TOKENIZER_JSON: [&str; 2] = ["PreTrainedTokenizerFast", "TokenizersBackend"];

fn is_berts(class: &str) -> bool {
    let name = class.trim_end_matches("Fast");
    // RemBERT's is SentencePiece.
    COPIES.contains(&name) || name.ends_with("BertTokenizer") && name != "RemBertTokenizer"
}

/// What one JSON file states, or nothing.
struct Stated<'a> {
    file: &'a str,
    bytes: &'a [u8],
    json: Map<String, Value>,
}

/// An object's values in the order of the file, which [`Map`] does not keep.
struct InOrder(Vec<Value>);

impl<'de> Deserialize<'de> for InOrder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values;

        impl<'de> Visitor<'de> for Values {
            type Value = InOrder;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<InOrder, A::Error> {
                let (mut values, mut places) = (Vec::new(), HashMap::new());
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    // Of a key that comes twice, Python keeps the first one's place and the last one's value.
                    let place = *places.entry(key).or_insert(values.len());
                    match values.get_mut(place) {
                        Some(known) => *known = value,
                        None => values.push(value),
                    }
                }
                Ok(InOrder(values))
            }
        }

        deserializer.deserialize_map(Values)
    }
}

impl<'a> Stated<'a> {
    fn read(file: Option<(&'a str, &'a [u8])>) -> Result<Self, TokenizerError> {
        let Some((file, bytes)) = file else {
            let (file, bytes, json) = ("", &b"{}"[..], Map::new());
            return Ok(Stated { file, bytes, json });
        };
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(json)) => Ok(Stated { file, bytes, json }),
            Ok(_) => Err(TokenizerError::malformed(file, "expected a JSON object")),
            Err(error) => Err(TokenizerError::malformed(file, &error.to_string())),
        }
    }

    fn wrong(&self, key: &str, expected: &str, found: &Value) -> TokenizerError {
        TokenizerError::malformed(
            self.file,
            &format!("{key:?}: expected {expected}, found {}", kind(found)),
        )
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, TokenizerError> {
        match self.json.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self.wrong(key, "true, false or null", other)),
        }
    }

    fn one(&self, key: &str, value: &Value) -> Result<AddedToken, TokenizerError> {
        added_token(value, true)
            .ok_or_else(|| self.wrong(key, "a token as a string or an object with \"content\"", value))
    }

    fn token(&self, key: &str) -> Result<Option<AddedToken>, TokenizerError> {
        let value = self.json.get(key).filter(|value| !value.is_null());
        value.map(|value| self.one(key, value)).transpose()
    }

    /// The special tokens that have no name, in order.
    fn tokens(&self) -> Result<Vec<AddedToken>, TokenizerError> {
        let mut tokens = Vec::new();
        for key in EXTRA_KEYS {
            let values = match self.json.get(key) {
                None | Some(Value::Null) => continue,
                Some(Value::Array(values)) => values.clone(),
                Some(Value::Object(_)) => self.in_order(key)?,
                Some(other) => return Err(self.wrong(key, "a list", other)),
            };
            for value in &values {
                tokens.push(self.one(key, value)?);
            }
        }
        Ok(tokens)
    }

    /// The values of the object `key`, in which order their tokens take ids.
    fn in_order(&self, key: &str) -> Result<Vec<Value>, TokenizerError> {
        let malformed = |error: serde_json::Error| TokenizerError::malformed(self.file, &error.to_string());
        let members: HashMap<String, &RawValue> = serde_json::from_slice(self.bytes).map_err(malformed)?;
        let Some(raw) = members.get(key) else {
            return Ok(Vec::new());
        };
        let InOrder(values) = serde_json::from_str(raw.get()).map_err(malformed)?;
        Ok(values)
    }

    /// `added_tokens_decoder`: tokens by id.
    fn decoder(&self) -> Result<Option<BTreeMap<u32, AddedToken>>, TokenizerError> {
        const KEY: &str = "added_tokens_decoder";
        let tokens = match self.json.get(KEY) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Object(tokens)) => tokens,
            Some(other) => return Err(self.wrong(KEY, "an object", other)),
        };
        let mut added = BTreeMap::new();
        for (id, value) in tokens {
            let id: u32 = id.parse().map_err(|_| {
                TokenizerError::malformed(self.file, &format!("{KEY:?}: expected token ids as keys, found {id:?}"))
            })?;
            let token = added_token(value, false).ok_or_else(|| self.wrong(KEY, "objects with \"content\"", value))?;
            added.insert(id, token);
        }
        Ok(Some(added))
    }

    /// `added_tokens.json`, all of which are ids by token, as such a decoder.
    fn ids(&self, is_special: impl Fn(&str) -> bool) -> Result<BTreeMap<u32, AddedToken>, TokenizerError> {
        let mut added = BTreeMap::new();
        for (content, value) in &self.json {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
            let id = id.ok_or_else(|| self.wrong(content, "a token id", value))?;
            let special = is_special(content);
            let token = AddedToken::from(content.as_str(), special).normalized(!special);
            if let Some(other) = added.insert(id, token) {
                return Err(TokenizerError::malformed(
                    self.file,
                    &format!("id {id} is that of {:?} and of {content:?}", other.content),
                ));
            }
        }
        Ok(added)
    }
}

/// A token as configurations write it: its content alone, or an object with its options.
fn added_token(value: &Value, special: bool) -> Option<AddedToken> {
    if let Value::String(content) = value {
        return Some(AddedToken::from(content.as_str(), special));
    }
    let object = value.as_object()?;
    let option = |key: &str, default: bool| object.get(key).and_then(Value::as_bool).unwrap_or(default);
    let special = option("special", special);
    Some(
        AddedToken::from(object.get("content")?.as_str()?, special)
            .single_word(option("single_word", false))
            .lstrip(option("lstrip", false))
            .rstrip(option("rstrip", false))
            .normalized(option("normalized", !special)),
    )
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
