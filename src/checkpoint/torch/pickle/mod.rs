//! A pickle interpreter for data alone.
//!
//! It runs the instructions that `torch.save` writes (protocols 2 to 5), and executes nothing: the only
//! callables it knows build dicts and describe tensors; every other global, and whatever is made with it
//! (optimizer state, argument namespaces, numpy scalars), becomes an opaque object, which is an error only
//! where a tensor is needed in its place.
//!
//! Objects live in one arena and refer to each other by index, so neither deep nesting nor a cycle can exhaust
//! the stack, in reading or in dropping. Text stays in the input. Each instruction makes at most one object,
//! and their number is bounded, so memory is.

mod machine;

use candle_core::DType;

use self::machine::Machine;
use crate::checkpoint::error::shorten;

/// `data.pkl` holds no tensor bytes; the largest honest ones are a few MB.
const LONGEST: usize = 256 << 20;
/// A slice of the pickle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text {
    start: u32,
    len: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    None,
    Bool,
    Int(i64),
    /// A number or string that nothing here looks at: floats, byte strings, integers beyond 64 bits.
    Other,
    Text(Text),
    Object(u32),
}

#[derive(Debug)]
enum Object {
    Tuple(Vec<Value>),
    List,
    Dict(Vec<(Value, Value)>),
    Global {
        module: Text,
        name: Text,
    },
    Storage {
        kind: Text,
        key: Text,
        elements: u64,
    },
    Tensor(Tensor),
    /// The result of a callable that is not run here, and which one.
    Opaque(Option<(Text, Text)>),
}

/// What `torch._utils._rebuild_tensor_v2` is told.
#[derive(Debug)]
pub(super) struct Tensor {
    /// The record below `data/`.
    pub key: String,
    pub storage_elements: u64,
    /// In elements.
    pub offset: u64,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
    /// Whether there is more to it than its elements, such as that it is a view of them negated.
    has_metadata: bool,
    kind: Text,
}

/// A finished run: what was pickled, and all it refers to.
pub(super) struct Pickle<'a> {
    input: &'a [u8],
    objects: Vec<Object>,
    pub root: Value,
}

impl<'a> Pickle<'a> {
    /// Runs the pickle `input`.
    ///
    /// # Errors
    /// What is wrong, and at which byte.
    pub(super) fn read(input: &'a [u8]) -> Result<Self, String> {
        if input.len() > LONGEST {
            return Err(format!("{} bytes, and at most {LONGEST} are read", input.len()));
        }
        let mut machine = Machine::new(input);
        loop {
            let at = machine.at();
            match machine.step() {
                Ok(None) => {}
                Ok(Some(root)) => {
                    return Ok(Self {
                        input,
                        objects: machine.into_objects(),
                        root,
                    });
                }
                Err(why) => return Err(format!("byte {at}: {why}")),
            }
        }
    }

    fn object(&self, value: Value) -> Option<&Object> {
        match value {
            Value::Object(index) => self.objects.get(index as usize),
            _ => None,
        }
    }

    pub(super) fn text(&self, value: Value) -> Option<&'a str> {
        match value {
            Value::Text(text) => Some(read_text(self.input, text)),
            _ => None,
        }
    }

    /// Whether a value is these words. Looks at no longer ones: a short pickle can refer to one long text very often.
    pub(super) fn is_text(&self, value: Value, words: &str) -> bool {
        matches!(value, Value::Text(text) if text.len as usize == words.len() && read_text(self.input, text) == words)
    }

    pub(super) fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        match self.object(value)? {
            Object::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    pub(super) fn tensor(&self, value: Value) -> Option<&Tensor> {
        match self.object(value)? {
            Object::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// The type of a tensor's elements.
    ///
    /// # Errors
    /// Where it is not one of the three that are read, or there is more to the tensor than its elements.
    pub(super) fn dtype_of(&self, tensor: &Tensor) -> Result<DType, String> {
        if tensor.has_metadata {
            return Err(
                "it is stored with metadata, as the negation of its elements is, and that is not read here: save \
                 tensor.resolve_neg().clone()"
                    .to_owned(),
            );
        }
        match read_text(self.input, tensor.kind) {
            "FloatStorage" => Ok(DType::F32),
            "HalfStorage" => Ok(DType::F16),
            "BFloat16Storage" => Ok(DType::BF16),
            other => Err(format!(
                "type torch.{} is not read here: expected float, half or bfloat16",
                shorten(other)
            )),
        }
    }

    /// A value as a key in a message.
    pub(super) fn show(&self, value: Value) -> String {
        match value {
            Value::Text(text) => format!("\"{}\"", shorten(read_text(self.input, text))),
            Value::Int(number) => number.to_string(),
            other => self.describe(other),
        }
    }

    /// What kind of thing a value is, for people.
    pub(super) fn describe(&self, value: Value) -> String {
        match (value, self.object(value)) {
            (Value::None, _) => "None".into(),
            (Value::Bool, _) => "a bool".into(),
            (Value::Int(_), _) => "an int".into(),
            (Value::Text(_), _) => "a string".into(),
            (_, Some(Object::Tuple(_))) => "a tuple".into(),
            (_, Some(Object::List)) => "a list".into(),
            (_, Some(Object::Dict(entries))) => format!("a dict of {}", entries.len()),
            (_, Some(Object::Storage { .. })) => "a storage".into(),
            (_, Some(Object::Tensor(_))) => "a tensor".into(),
            (_, Some(Object::Global { module, name } | Object::Opaque(Some((module, name))))) => {
                let global = format!("{}.{}", read_text(self.input, *module), read_text(self.input, *name));
                format!("an object of {}", shorten(&global))
            }
            _ => "an object".into(),
        }
    }
}

/// The machine only makes a [`Text`] of bytes inside the input that it has found to be UTF-8.
fn read_text(input: &[u8], text: Text) -> &str {
    let start = text.start as usize;
    let bytes = input.get(start..start + text.len as usize).unwrap_or_default();
    std::str::from_utf8(bytes).unwrap_or_default()
}
