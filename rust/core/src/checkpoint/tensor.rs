//! Arrays as a checkpoint holds them.

use std::collections::TryReserveError;

use super::{CHUNK, MAX_RANK};
use crate::{Error, Result};

/// A value of fixed size in little-endian bytes.
trait Element: Copy {
    const SIZE: usize;
    fn store(self, to: &mut [u8]);
    /// None if no value is stored so.
    fn load(from: &[u8]) -> Option<Self>;
}

impl Element for bool {
    const SIZE: usize = 1;
    fn store(self, to: &mut [u8]) {
        to[0] = u8::from(self);
    }
    fn load(from: &[u8]) -> Option<Self> {
        match from {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }
}

macro_rules! number_elements {
    ($($ty:ty),*) => {$(
        impl Element for $ty {
            const SIZE: usize = size_of::<$ty>();
            fn store(self, to: &mut [u8]) {
                to.copy_from_slice(&self.to_le_bytes());
            }
            fn load(from: &[u8]) -> Option<Self> {
                from.try_into().ok().map(Self::from_le_bytes)
            }
        }
    )*};
}
number_elements!(u8, u32, i64, u64, f32, f64);

/// Calls `$body` with `$values` bound to the vector, whatever its type.
macro_rules! each_type {
    ($data:expr, $values:ident => $body:expr) => {
        match $data {
            TensorData::Bool($values) => $body,
            TensorData::U8($values) => $body,
            TensorData::U32($values) => $body,
            TensorData::I64($values) => $body,
            TensorData::U64($values) => $body,
            TensorData::F32($values) => $body,
            TensorData::F64($values) => $body,
        }
    };
}

/// The values of a tensor, last axis fastest. Every bit is kept, those of NaN too.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum TensorData {
    /// Truth values, one byte each.
    Bool(Vec<bool>),
    /// Bytes.
    U8(Vec<u8>),
    /// Unsigned 32-bit integers.
    U32(Vec<u32>),
    /// Signed 64-bit integers.
    I64(Vec<i64>),
    /// Unsigned 64-bit integers.
    U64(Vec<u64>),
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 64-bit floats.
    F64(Vec<f64>),
}

macro_rules! from_vec {
    ($($ty:ty => $variant:ident),*) => {$(
        impl From<Vec<$ty>> for TensorData {
            fn from(values: Vec<$ty>) -> Self {
                Self::$variant(values)
            }
        }
    )*};
}
from_vec!(bool => Bool, u8 => U8, u32 => U32, i64 => I64, u64 => U64, f32 => F32, f64 => F64);

impl TensorData {
    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        each_type!(self, values => values.len())
    }

    /// Whether there are no values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name of the data type in a safetensors file, for instance `F32`.
    #[must_use]
    pub fn dtype(&self) -> &'static str {
        match self {
            Self::Bool(_) => "BOOL",
            Self::U8(_) => "U8",
            Self::U32(_) => "U32",
            Self::I64(_) => "I64",
            Self::U64(_) => "U64",
            Self::F32(_) => "F32",
            Self::F64(_) => "F64",
        }
    }

    /// No values yet of the data type with this name, or None if there is none.
    pub(super) fn of_dtype(name: &str) -> Option<Self> {
        Some(match name {
            "BOOL" => Self::Bool(Vec::new()),
            "U8" => Self::U8(Vec::new()),
            "U32" => Self::U32(Vec::new()),
            "I64" => Self::I64(Vec::new()),
            "U64" => Self::U64(Vec::new()),
            "F32" => Self::F32(Vec::new()),
            "F64" => Self::F64(Vec::new()),
            _ => return None,
        })
    }

    /// Bytes of one value.
    pub(super) fn element_size(&self) -> usize {
        fn size<T: Element>(_: &[T]) -> usize {
            T::SIZE
        }
        each_type!(self, values => size(values))
    }

    /// Gives the data as little-endian bytes, appended to `buffer`, which `flush` may empty between
    /// the pieces.
    pub(super) fn stream<E>(
        &self,
        buffer: &mut Vec<u8>,
        flush: &mut dyn FnMut(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        fn run<T: Element, E>(
            values: &[T],
            buffer: &mut Vec<u8>,
            flush: &mut dyn FnMut(&mut Vec<u8>) -> Result<(), E>,
        ) -> Result<(), E> {
            for part in values.chunks(CHUNK / T::SIZE) {
                let start = buffer.len();
                buffer.resize(start + part.len() * T::SIZE, 0);
                for (to, value) in buffer[start..].chunks_exact_mut(T::SIZE).zip(part) {
                    value.store(to);
                }
                flush(buffer)?;
            }
            Ok(())
        }
        each_type!(self, values => run(values, buffer, flush))
    }

    pub(super) fn try_reserve(&mut self, additional: usize) -> Result<(), TryReserveError> {
        each_type!(self, values => values.try_reserve_exact(additional))
    }

    /// Appends values from little-endian bytes; false if some are no values of the type.
    #[must_use]
    pub(super) fn append(&mut self, bytes: &[u8]) -> bool {
        fn run<T: Element>(values: &mut Vec<T>, bytes: &[u8]) -> bool {
            let wanted = values.len() + bytes.len() / T::SIZE;
            values.extend(bytes.chunks_exact(T::SIZE).map_while(T::load));
            values.len() == wanted
        }
        each_type!(self, values => run(values, bytes))
    }
}

/// An array: a shape and as many values as it needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// The lengths of the axes; empty for a single number.
    pub shape: Vec<usize>,
    /// The values, last axis fastest.
    pub data: TensorData,
}

impl Tensor {
    /// An array of this shape.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if the values do not fill the shape, or there are more than [`MAX_RANK`]
    /// axes.
    pub fn new(shape: Vec<usize>, data: impl Into<TensorData>) -> Result<Self> {
        let tensor = Self { shape, data: data.into() };
        match tensor.check() {
            Ok(_) => Ok(tensor),
            Err(reason) => Err(Error::Shape(format!("tensor {reason}"))),
        }
    }

    /// The number of bytes of the data.
    pub(super) fn check(&self) -> Result<u64, String> {
        let (wanted, bytes) = extent(&self.shape, self.data.element_size())?;
        if wanted == self.data.len() as u64 {
            Ok(bytes)
        } else {
            let (shape, got) = (&self.shape, self.data.len());
            Err(format!("has shape {shape:?}, which needs {wanted} values, but {got} values"))
        }
    }
}

/// Number of values and of bytes that a shape needs.
pub(super) fn extent(shape: &[usize], element_size: usize) -> Result<(u64, u64), String> {
    if shape.len() > MAX_RANK {
        return Err(format!("has {} axes; at most {MAX_RANK} can be stored", shape.len()));
    }
    // Left to right and up to bits, as other safetensors readers multiply: what they refuse is not
    // written.
    let values = shape.iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim as u64));
    values
        .and_then(|values| Some((values, values.checked_mul(8 * element_size as u64)? / 8)))
        .ok_or_else(|| format!("has shape {shape:?}, which is more than can be addressed"))
}
