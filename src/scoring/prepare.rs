//! From one side of a record to token ids: marking, then tokenizing, with every refusal as a line's error.

use super::error::{ErrorCode, LineError};
use crate::Side;
use crate::text::{MarkedText, Tokenizer, Truncation, locate_every, locate_span, mark_every, mark_span};
use crate::words::quoted;

/// One side of a pair: its text, the entity in it, and which occurrence is meant.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub side: Side,
    pub text: &'a str,
    pub entity: &'a str,
    /// `[start, end)` in code points; none means every occurrence.
    pub span: Option<[usize; 2]>,
    /// How messages name the fields that the entity and the span come from.
    pub entity_field: &'a str,
    pub span_field: &'a str,
}

/// What the network gets to see of a context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    pub token_ids: Vec<u32>,
    /// The mention lies outside `token_ids`.
    pub mention_truncated: bool,
    /// The entity does not occur and nothing was marked.
    pub entity_missing: bool,
}

/// The text side of the pipeline. Called from many threads at once.
pub trait Prepare: Sync {
    fn prepare(&self, context: Context<'_>) -> Result<Prepared, LineError>;
}

/// What becomes of a context in which the entity does not occur.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingEntity {
    /// An error record.
    #[default]
    Error,
    /// Scored without a marker and with a warning, as the original does silently.
    Unmarked,
}

/// Marks and tokenizes as the model was trained to see its texts.
pub struct Preparer<'t> {
    pub tokenizer: &'t Tokenizer,
    /// Whether this model's texts carry entity markers. Without, entities still have to occur.
    pub markers: bool,
    /// Most tokens in a sequence, `[CLS]` and `[SEP]` included.
    pub max_length: usize,
    pub truncation: Truncation,
    pub missing_entity: MissingEntity,
}

impl Prepare for Preparer<'_> {
    fn prepare(&self, context: Context<'_>) -> Result<Prepared, LineError> {
        let marked = mark(context, self.markers, self.missing_entity)?;
        let entity_missing = marked.mentions.is_empty();
        let not_tokenized = |reason: String| {
            let side = context.side.name();
            LineError::new(
                ErrorCode::NotTokenized,
                format!("the {side} side's text was refused by the tokenizer: {reason}"),
            )
        };
        let tokenized = self
            .tokenizer
            .tokenize(&marked, self.max_length, self.truncation)
            .map_err(|error| not_tokenized(error.to_string()))?;
        if tokenized.token_ids.is_empty() {
            return Err(not_tokenized("it gave no tokens".to_owned()));
        }
        Ok(Prepared {
            token_ids: tokenized.token_ids,
            mention_truncated: tokenized.mention_truncated,
            entity_missing,
        })
    }
}

/// Finds the entity as every model has to, and marks it where this one wants that.
pub(super) fn mark(
    context: Context<'_>,
    markers: bool,
    missing_entity: MissingEntity,
) -> Result<MarkedText, LineError> {
    let Context {
        side,
        text,
        entity,
        span,
        span_field,
        ..
    } = context;
    // A span is checked for a model without markers too: a wrong span is a wrong record.
    let marked = match (span, markers) {
        (Some(span), true) => mark_span(text, entity, span, side),
        (Some(span), false) => locate_span(text, entity, span),
        (None, true) => Ok(mark_every(text, entity, side)),
        (None, false) => Ok(locate_every(text, entity)),
    };
    let marked =
        marked.map_err(|error| LineError::new(ErrorCode::SpanMismatch, format!("field {span_field}: {error}")))?;
    if marked.mentions.is_empty() && missing_entity == MissingEntity::Error {
        return Err(not_found(context));
    }
    Ok(marked)
}

fn not_found(context: Context<'_>) -> LineError {
    let Context {
        side,
        text,
        entity,
        entity_field,
        ..
    } = context;
    let remark = if text.contains(entity.trim()) {
        "; it does without the spaces around it"
    } else if text.to_lowercase().contains(&entity.to_lowercase()) {
        "; it does in another case, and case counts"
    } else {
        ""
    };
    let message = format!(
        "field {entity_field}: expected a name that occurs in the {} side's text, found {}, which does not{remark}",
        side.name(),
        quoted(entity)
    );
    LineError::new(ErrorCode::EntityNotFound, message)
}
