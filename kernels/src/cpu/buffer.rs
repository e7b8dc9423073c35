//! Memory for packed operands: aligned to cache lines, and reused from call to call.

use std::alloc::{Layout, handle_alloc_error};
use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::Arc;

use memmap2::{Mmap, MmapMut};

/// f32 values of which the first lies at the start of a page, hence of a cache line.
#[derive(Default)]
pub(super) struct AlignedBuffer {
    pages: Option<MmapMut>,
}

impl AlignedBuffer {
    /// `len` zeros, in huge pages where the system has them: weights are written once, and with
    /// 4 KiB pages more than half of the time for that would go into page faults. Aborts if
    /// there is no memory, as `Vec` does.
    pub fn zeroed(len: usize) -> Self {
        let layout = Layout::array::<f32>(len).unwrap_or(Layout::new::<f32>());
        let pages = match MmapMut::map_anon(layout.size().max(1)) {
            Ok(pages) if len == layout.size() / size_of::<f32>() => pages,
            _ => handle_alloc_error(layout),
        };
        // Without them it only takes longer.
        #[cfg(target_os = "linux")]
        let _ = pages.advise(memmap2::Advice::HugePage);
        Self { pages: Some(pages) }
    }

    pub fn as_slice(&self) -> &[f32] {
        match &self.pages {
            // SAFETY: every bit pattern is an f32; pages are aligned, so nothing is left out in front.
            Some(pages) => unsafe { pages.align_to().1 },
            None => &[],
        }
    }

    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        match &mut self.pages {
            // SAFETY: as in `as_slice`.
            Some(pages) => unsafe { pages.align_to_mut().1 },
            None => &mut [],
        }
    }

    /// `len` values left over from the last use.
    pub fn scratch(&mut self, len: usize) -> &mut [f32] {
        if self.as_slice().len() < len {
            *self = Self::zeroed(len);
        }
        &mut self.as_mut_slice()[..len]
    }
}

/// Packed weights: in memory of their own, or as a file holds them.
pub(super) enum Words {
    Owned(AlignedBuffer),
    Mapped { map: Arc<Mmap>, range: Range<usize> },
}

impl Words {
    /// The bytes in `range` of `map`, which has to lie within it and begin at a whole word.
    pub fn mapped(map: Arc<Mmap>, range: Range<usize>) -> Option<Self> {
        let bytes = map.get(range.clone())?;
        // SAFETY: every bit pattern is an f32.
        let (before, _, after) = unsafe { bytes.align_to::<f32>() };
        (before.is_empty() && after.is_empty()).then_some(Self::Mapped { map, range })
    }

    pub fn as_slice(&self) -> &[f32] {
        match self {
            Self::Owned(buffer) => buffer.as_slice(),
            // SAFETY: every bit pattern is an f32, and `mapped` has checked that nothing is left out at either end. A
            // program that writes to the file meanwhile changes numbers, which whoever opened it finds out afterwards;
            // one that truncates it ends the process with SIGBUS.
            Self::Mapped { map, range } => unsafe { map[range.clone()].align_to().1 },
        }
    }
}

/// Working memory of the kernels, one per thread. What it holds between calls has no meaning.
#[derive(Default)]
pub(super) struct Scratch {
    /// Of a product.
    pub product: ProductScratch,
    /// Of a product whose result is the left operand of the other.
    pub product_before: ProductScratch,
    /// Results that go from one operation to the next: intermediate values, queries, keys and values of a head, the
    /// bilinear's lanes.
    pub between: AlignedBuffer,
    /// Of attention, head by head.
    pub attention: AttentionScratch,
}

/// What a product needs beside its panels.
#[derive(Default)]
pub(super) struct ProductScratch {
    /// Rows of the left operand, packed.
    pub left: AlignedBuffer,
    /// What its format has to know of each row.
    pub terms: AlignedBuffer,
    /// Sums of one panel, or of all where rows are cut into segments.
    pub sums: AlignedBuffer,
}

#[derive(Default)]
pub(super) struct AttentionScratch {
    /// Of the products of one head.
    pub product: ProductScratch,
    /// Transposed keys of one head.
    pub keys: AlignedBuffer,
    /// Values of one head.
    pub values: AlignedBuffer,
    /// Attention scores of one tile of queries, then their softmax.
    pub scores: AlignedBuffer,
}

/// Lends the calling thread's scratch memory to `f`, which must not ask for it again.
pub(super) fn with_scratch<R>(f: impl FnOnce(&mut Scratch) -> R) -> R {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }
    SCRATCH.with_borrow_mut(f)
}

/// `values` as memory to be written to.
///
/// # Safety
/// Only values may be written there, nothing that is uninitialised.
pub(super) unsafe fn as_uninit(values: &mut [f32]) -> &mut [MaybeUninit<f32>] {
    // SAFETY: the layout is the same, and the caller states that initialised values stay so.
    unsafe { &mut *(std::ptr::from_mut(values) as *mut [MaybeUninit<f32>]) }
}
