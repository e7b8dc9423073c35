//! Matrix products on slices, over the `gemm` crate.

use candle_core::{Result, bail};
use gemm::Parallelism;

/// A matrix that lies in a slice with any strides.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `[rows, columns]`, row after row.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::with_stride(data, rows, columns, columns)
    }

    /// `[rows, columns]` whose rows begin `row_stride` elements apart.
    pub fn with_stride(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        Self {
            data,
            rows,
            columns,
            row_stride,
            column_stride: 1,
        }
    }

    pub fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    fn fits(&self) -> bool {
        reaches(self.rows, self.columns, self.row_stride, self.column_stride) <= self.data.len()
    }
}

/// Elements from the first to the last one of such a matrix.
fn reaches(rows: usize, columns: usize, row_stride: usize, column_stride: usize) -> usize {
    match rows == 0 || columns == 0 {
        true => 0,
        false => (rows - 1) * row_stride + (columns - 1) * column_stride + 1,
    }
}

/// `into = scale * a b`, or with `add` `into += scale * a b`; the rows of `into` begin `row_stride` elements apart.
pub(super) fn product(
    into: &mut [f32],
    row_stride: usize,
    add: bool,
    scale: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
    parallel: bool,
) -> Result<()> {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    let room = reaches(m, n, row_stride, 1);
    if b.rows != k || !a.fits() || !b.fits() || room > into.len() || (m > 1 && n > row_stride) {
        bail!(
            "product of [{m}, {k}] and [{}, {n}]: the slices do not hold them",
            b.rows
        )
    }
    if m == 0 || n == 0 {
        return Ok(());
    }
    let threads = rayon::current_num_threads();
    let parallelism = match parallel && threads > 1 {
        true => Parallelism::Rayon(threads),
        false => Parallelism::None,
    };
    // SAFETY: every element addressed lies within its slice, as just checked, rows of `into` do not overlap,
    // and `into` is borrowed mutably, so that it overlaps neither of the others.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            into.as_mut_ptr(),
            1,
            row_stride as isize,
            add,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0f32,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
    Ok(())
}
