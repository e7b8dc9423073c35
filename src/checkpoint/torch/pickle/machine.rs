//! The machine that runs a pickle: a stack, marks on it, a memo, and the arena of objects.
//!
//! Every length is checked against the remaining input and every count against a bound before it is used; a
//! slice is only taken of what was checked.

use std::collections::HashMap;

use super::{Object, Tensor, Text, Value, read_text};
use crate::checkpoint::listing::{MOST_DIMENSIONS, MOST_TENSORS};

/// Objects, stack entries and memo entries, each. A checkpoint of this family with its optimizer needs some
/// twenty thousand.
const MOST_OBJECTS: usize = 1 << 20;
pub(super) struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    /// Stack heights at which a mark lies; nothing below the last one may be popped.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    objects: Vec<Object>,
    /// How many of the objects are tensors, which take more room than others.
    tensors: usize,
}

impl<'a> Machine<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self {
            input,
            at: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            objects: Vec::new(),
            tensors: 0,
        }
    }

    /// The byte that the next instruction is at.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn into_objects(self) -> Vec<Object> {
        self.objects
    }

    /// Runs one instruction; the root when it was STOP.
    pub(super) fn step(&mut self) -> Result<Option<Value>, String> {
        let opcode = self
            .byte()
            .map_err(|_| "ends before its STOP instruction".to_string())?;
        match opcode {
            b'.' => return self.pop().map(Some),
            // PROTO
            0x80 => {
                let version = self.byte()?;
                if !(2..=5).contains(&version) {
                    return Err(format!("pickle protocol {version}: expected 2 to 5"));
                }
            }
            // FRAME: how much may be read ahead; its end needs no notice.
            0x95 => {
                let length = self.number::<8>()?;
                self.available(length)?;
            }
            b'(' => {
                self.bounded(self.marks.len())?;
                self.marks.push(self.stack.len());
            }
            b'0' => {
                // As in Python, POP takes a mark where one is on top.
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            b'1' => {
                let from = self.pop_mark()?;
                self.stack.truncate(from);
            }
            b'2' => {
                let top = self.top()?;
                self.push(top)?;
            }
            b'N' => self.push(Value::None)?,
            0x88 | 0x89 => self.push(Value::Bool)?,
            b'J' => {
                let bytes = self.array::<4>()?;
                self.push(Value::Int(i64::from(i32::from_le_bytes(bytes))))?;
            }
            b'K' => {
                let number = self.byte()?;
                self.push(Value::Int(i64::from(number)))?;
            }
            b'M' => {
                let bytes = self.array::<2>()?;
                self.push(Value::Int(i64::from(u16::from_le_bytes(bytes))))?;
            }
            // LONG1, LONG4
            0x8a => self.long::<1>()?,
            0x8b => self.long::<4>()?,
            // BINFLOAT
            b'G' => {
                self.array::<8>()?;
                self.push(Value::Other)?;
            }
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
            0x8c => self.unicode::<1>()?,
            b'X' => self.unicode::<4>()?,
            0x8d => self.unicode::<8>()?,
            // SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8, and Python 2's SHORT_BINSTRING and BINSTRING
            b'C' | b'U' => self.bytes::<1>()?,
            b'B' | b'T' => self.bytes::<4>()?,
            0x8e | 0x96 => self.bytes::<8>()?,
            b']' => self.make(Object::List)?,
            // EMPTY_SET
            0x8f => self.make(Object::Opaque(None))?,
            b'}' => self.make(Object::Dict(Vec::new()))?,
            b')' => self.make(Object::Tuple(Vec::new()))?,
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' => {
                let from = self.pop_mark()?;
                self.tuple(self.stack.len() - from)?;
            }
            // LIST, FROZENSET: made of the items above the mark, which nothing here looks at.
            b'l' | 0x91 => {
                let from = self.pop_mark()?;
                self.stack.truncate(from);
                self.make(if opcode == b'l' {
                    Object::List
                } else {
                    Object::Opaque(None)
                })?;
            }
            b'd' => {
                let from = self.pop_mark()?;
                let entries = self.pairs(from)?;
                self.make(Object::Dict(entries))?;
            }
            b'a' => {
                self.pop()?;
                self.top()?;
            }
            // APPENDS, ADDITEMS
            b'e' | 0x90 => {
                let from = self.pop_mark()?;
                self.stack.truncate(from);
                self.top()?;
            }
            b's' => {
                let floor = self.floor();
                let from = self.stack.len().checked_sub(2).filter(|from| *from >= floor);
                self.set_items(from.ok_or("stack underflow")?)?;
            }
            b'u' => {
                let from = self.pop_mark()?;
                self.set_items(from)?;
            }
            // BINPUT, LONG_BINPUT, MEMOIZE
            b'q' => {
                let index = self.byte()?;
                self.remember(u32::from(index))?;
            }
            b'r' => {
                let index = u32::from_le_bytes(self.array()?);
                self.remember(index)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let index = self.byte()?;
                self.recall(u32::from(index))?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.array()?);
                self.recall(index)?;
            }
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.make(Object::Global { module, name })?;
            }
            // STACK_GLOBAL
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (module, name) else {
                    return Err("STACK_GLOBAL without two strings".into());
                };
                self.make(Object::Global { module, name })?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.make(storage)?;
            }
            // REDUCE, NEWOBJ: a callable or class, and a tuple of arguments
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let made = self.call(callable, arguments)?;
                self.push_made(made)?;
            }
            // NEWOBJ_EX: class, arguments, keyword arguments
            0x92 => {
                self.pop()?;
                self.pop()?;
                let class = self.pop()?;
                let name = self.global(class);
                self.make(Object::Opaque(name))?;
            }
            // BUILD: sets attributes, such as a state dict's _metadata, which nothing here looks at.
            b'b' => {
                self.pop()?;
                self.top()?;
            }
            other => return Err(format!("instruction 0x{other:02x} is not one that torch.save writes")),
        }
        Ok(None)
    }

    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn bounded(&self, count: usize) -> Result<(), String> {
        if count >= MOST_OBJECTS {
            return Err(format!("more than {MOST_OBJECTS} objects"));
        }
        Ok(())
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        self.bounded(self.stack.len())?;
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value, String> {
        if self.stack.len() <= self.floor() {
            return Err("stack underflow".into());
        }
        self.stack.pop().ok_or_else(|| "stack underflow".into())
    }

    fn top(&self) -> Result<Value, String> {
        let own = &self.stack[self.floor().min(self.stack.len())..];
        own.last().copied().ok_or_else(|| "stack underflow".into())
    }

    fn pop_mark(&mut self) -> Result<usize, String> {
        // Pops never go below a mark, so the stack is at least this high.
        self.marks.pop().ok_or_else(|| "no mark on the stack".into())
    }

    fn make(&mut self, object: Object) -> Result<(), String> {
        self.bounded(self.objects.len())?;
        self.objects.push(object);
        // At most `MOST_OBJECTS`, so it fits.
        self.push(Value::Object(self.objects.len() as u32 - 1))
    }

    fn push_made(&mut self, made: Made) -> Result<(), String> {
        match made {
            Made::New(object) => {
                self.tensors += usize::from(matches!(object, Object::Tensor(_)));
                if self.tensors > MOST_TENSORS {
                    return Err(format!("more than {MOST_TENSORS} tensors"));
                }
                self.make(object)
            }
            Made::Existing(value) => self.push(value),
        }
    }

    fn tuple(&mut self, len: usize) -> Result<(), String> {
        let floor = self.floor();
        let from = self.stack.len().checked_sub(len).filter(|from| *from >= floor);
        let items = self.stack.split_off(from.ok_or("stack underflow")?);
        self.make(Object::Tuple(items))
    }

    fn pairs(&mut self, from: usize) -> Result<Vec<(Value, Value)>, String> {
        let items = self.stack.split_off(from);
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err("a key without a value".into());
        }
        Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
    }

    /// Moves the pairs from stack height `from` on into the dict below them.
    fn set_items(&mut self, from: usize) -> Result<(), String> {
        let pairs = self.pairs(from)?;
        if let Value::Object(index) = self.top()?
            && let Some(Object::Dict(entries)) = self.objects.get_mut(index as usize)
        {
            entries.extend(pairs);
        }
        Ok(())
    }

    fn remember(&mut self, index: u32) -> Result<(), String> {
        self.bounded(self.memo.len())?;
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<(), String> {
        let value = self.memo.get(&index).copied();
        self.push(value.ok_or_else(|| format!("memo {index} is read before it is written"))?)
    }

    fn available(&self, len: u64) -> Result<usize, String> {
        let rest = self.input.len() - self.at;
        usize::try_from(len)
            .ok()
            .filter(|len| *len <= rest)
            .ok_or_else(|| format!("a length of {len} where {rest} bytes remain"))
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.available(N as u64)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.input[self.at..self.at + N]);
        self.at += N;
        Ok(bytes)
    }

    /// An unsigned little-endian number of `N` (at most 8) bytes.
    fn number<const N: usize>(&mut self) -> Result<u64, String> {
        let bytes = self.array::<N>()?;
        Ok(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    /// A slice of the input preceded by its length in `N` bytes.
    fn counted<const N: usize>(&mut self) -> Result<Text, String> {
        let len = self.number::<N>()?;
        let len = self.available(len)?;
        let start = self.at;
        self.at += len;
        // The input is at most `LONGEST` bytes, so both fit.
        Ok(Text {
            start: start as u32,
            len: len as u32,
        })
    }

    fn slice(&self, text: Text) -> &[u8] {
        let start = text.start as usize;
        &self.input[start..start + text.len as usize]
    }

    fn unicode<const N: usize>(&mut self) -> Result<(), String> {
        let text = self.counted::<N>()?;
        // Python pickles lone surrogates too; no tensor name has one.
        let valid = std::str::from_utf8(self.slice(text)).is_ok();
        self.push(if valid { Value::Text(text) } else { Value::Other })
    }

    fn bytes<const N: usize>(&mut self) -> Result<(), String> {
        self.counted::<N>()?;
        self.push(Value::Other)
    }

    fn long<const N: usize>(&mut self) -> Result<(), String> {
        let digits = self.counted::<N>()?;
        let digits = self.slice(digits);
        let value = if digits.len() <= 8 {
            let negative = digits.last().is_some_and(|byte| byte & 0x80 != 0);
            let mut bytes = if negative { [0xff; 8] } else { [0; 8] };
            bytes[..digits.len()].copy_from_slice(digits);
            Value::Int(i64::from_le_bytes(bytes))
        } else {
            Value::Other
        };
        self.push(value)
    }

    fn line(&mut self) -> Result<Text, String> {
        let rest = &self.input[self.at..];
        let len = rest
            .iter()
            .take(1024)
            .position(|byte| *byte == b'\n')
            .ok_or("a global's name has no end")?;
        std::str::from_utf8(&rest[..len]).map_err(|_| "a global's name is not UTF-8")?;
        let start = self.at;
        self.at += len + 1;
        Ok(Text {
            start: start as u32,
            len: len as u32,
        })
    }

    fn object(&self, value: Value) -> Option<&Object> {
        match value {
            Value::Object(index) => self.objects.get(index as usize),
            _ => None,
        }
    }

    fn global(&self, value: Value) -> Option<(Text, Text)> {
        match self.object(value) {
            Some(Object::Global { module, name }) => Some((*module, *name)),
            _ => None,
        }
    }

    fn items(&self, value: Value) -> Option<&[Value]> {
        match self.object(value) {
            Some(Object::Tuple(items)) => Some(items),
            _ => None,
        }
    }

    /// `torch.save` refers to a storage as `("storage", torch.FloatStorage, key, location, elements)`.
    fn storage(&self, id: Value) -> Result<Object, String> {
        const EXPECTED: &str = "a persistent id that is not torch.save's (\"storage\", type, key, location, elements)";
        let Some([Value::Text(tag), kind, Value::Text(key), _, Value::Int(elements)]) = self.items(id) else {
            return Err(EXPECTED.into());
        };
        let (Some((_, kind)), b"storage", Ok(elements)) =
            (self.global(*kind), self.slice(*tag), u64::try_from(*elements))
        else {
            return Err(EXPECTED.into());
        };
        Ok(Object::Storage {
            kind,
            key: *key,
            elements,
        })
    }

    /// What `callable(*arguments)` stands for, without running anything.
    fn call(&self, callable: Value, arguments: Value) -> Result<Made, String> {
        let opaque = |this: &Self| Made::New(Object::Opaque(this.global(callable)));
        let Some((module, name)) = self.global(callable) else {
            return Ok(opaque(self));
        };
        let Some(items) = self.items(arguments) else {
            return Ok(opaque(self));
        };
        let name = (self.slice(module), self.slice(name));
        Ok(match (name, items) {
            ((b"collections", b"OrderedDict"), []) => Made::New(Object::Dict(Vec::new())),
            ((b"torch._utils", b"_rebuild_tensor_v2"), _) => Made::New(self.rebuild_tensor(items)?),
            // A parameter is its tensor, and whether it is trained.
            ((b"torch._utils", b"_rebuild_parameter" | b"_rebuild_parameter_with_state"), [data, ..]) => {
                Made::Existing(*data)
            }
            // A tensor with attributes of its own: (function, type, arguments, state).
            ((b"torch._tensor", b"_rebuild_from_type_v2"), [function, _, arguments, ..])
                if self.is_rebuild_tensor(*function) =>
            {
                match self.items(*arguments) {
                    Some(items) => Made::New(self.rebuild_tensor(items)?),
                    None => opaque(self),
                }
            }
            _ => opaque(self),
        })
    }

    fn is_rebuild_tensor(&self, function: Value) -> bool {
        self.global(function).is_some_and(|(module, name)| {
            (self.slice(module), self.slice(name)) == (b"torch._utils", b"_rebuild_tensor_v2")
        })
    }

    /// `_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks, metadata)`, the last where there is some.
    fn rebuild_tensor(&self, arguments: &[Value]) -> Result<Object, String> {
        const EXPECTED: &str = "a tensor that is not (storage, offset, shape, strides, …)";
        let [storage, Value::Int(offset), shape, strides, ..] = arguments else {
            return Err(EXPECTED.into());
        };
        let Some(Object::Storage { kind, key, elements }) = self.object(*storage) else {
            return Err(EXPECTED.into());
        };
        let sizes = |value: Value| -> Result<Vec<usize>, String> {
            let items = self.items(value).ok_or(EXPECTED)?;
            if items.len() > MOST_DIMENSIONS {
                return Err(format!("a tensor of {} dimensions", items.len()));
            }
            let size = |item: &Value| match item {
                Value::Int(n) => usize::try_from(*n).map_err(|_| EXPECTED.to_string()),
                _ => Err(EXPECTED.to_string()),
            };
            items.iter().map(size).collect()
        };
        let (shape, strides) = (sizes(*shape)?, sizes(*strides)?);
        if shape.len() != strides.len() {
            return Err(format!(
                "a tensor of {} dimensions with {} strides",
                shape.len(),
                strides.len()
            ));
        }
        let offset = u64::try_from(*offset).map_err(|_| EXPECTED)?;
        if key.len > 64 {
            return Err("a storage key of more than 64 bytes".into());
        }
        let has_metadata = match arguments.get(6) {
            None | Some(Value::None) => false,
            Some(metadata) => !matches!(self.object(*metadata), Some(Object::Dict(entries)) if entries.is_empty()),
        };
        Ok(Object::Tensor(Tensor {
            has_metadata,
            key: read_text(self.input, *key).to_string(),
            storage_elements: *elements,
            offset,
            shape,
            strides,
            kind: *kind,
        }))
    }
}

/// A call gives a new object or, for wrappers, one of its arguments.
enum Made {
    New(Object),
    Existing(Value),
}
