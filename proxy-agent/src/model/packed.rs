//! Values in as few bytes as they take.
//!
//! A node keeps the Services of a whole cluster, and reads one when it changes. So each is packed into one allocation
//! without pointers, and unpacked only while it is read.

use std::{fmt, marker::PhantomData};

use serde::{Serialize, de::DeserializeOwned};
use smallvec::SmallVec;

/// A packed `T`. Equal bytes are equal values.
pub struct Packed<T> {
    bytes: Box<[u8]>,
    of: PhantomData<fn() -> T>,
}

/// Room for one usual value while it is packed: on the stack, for an allocation that goes at once leaves a hole.
type Usual = SmallVec<[u8; 256]>;

impl<T: Serialize + DeserializeOwned> Packed<T> {
    /// Packs a value.
    ///
    /// # Panics
    /// If `T` serializes as something without a length, which no type of ours does.
    pub fn new(value: &T) -> Self {
        let bytes = postcard::to_extend(value, Usual::new()).expect("types of known lengths");
        // A copy of just the right size.
        Self { bytes: bytes.as_slice().into(), of: PhantomData }
    }

    /// Unpacks it.
    ///
    /// # Panics
    /// If `T` does not deserialize from what it serializes to.
    pub fn get(&self) -> T {
        postcard::from_bytes(&self.bytes).expect("what was packed as this type")
    }
}

impl<A: DeserializeOwned, B> Packed<(A, B)> {
    /// Unpacks the first of a pair.
    ///
    /// # Panics
    /// If `A` does not deserialize from what it serializes to.
    pub fn first(&self) -> A {
        let (first, _) = postcard::take_from_bytes(&self.bytes).expect("what was packed as this type");
        first
    }
}

impl<T> PartialEq for Packed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl<T> fmt::Debug for Packed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}
