use std::{
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut, Range},
    sync::Arc,
};

use bytemuck::Pod;

#[cfg(not(target_endian = "little"))]
compile_error!("model files are read in place and hold little-endian numbers");

/// Bytes that several owners hold, such as a mapped file. Their place in memory does not change.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Numbers in their own memory, or lent by shared bytes. Reading costs no copy either way; the first
/// write to lent numbers makes a copy of them.
///
/// To deref lent numbers costs some nanoseconds: loops over single numbers take the slice once.
#[derive(Clone)]
pub struct Array<T>(Storage<T>);

#[derive(Clone)]
enum Storage<T> {
    Owned(Vec<T>),
    /// The range was checked to be whole and aligned numbers.
    Shared(SharedBytes, Range<usize>, PhantomData<T>),
}

impl<T: Pod> Array<T> {
    /// The numbers within a range of shared bytes: lent where they are aligned, else copied. None when the
    /// range is not within the bytes or not of whole numbers.
    pub fn shared(bytes: SharedBytes, range: Range<usize>) -> Option<Self> {
        let part = bytes.as_ref().as_ref().get(range.clone())?;
        if !part.len().is_multiple_of(size_of::<T>()) {
            return None;
        }
        if bytemuck::try_cast_slice::<u8, T>(part).is_err() {
            let numbers = part.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned);
            return Some(numbers.collect::<Vec<T>>().into());
        }
        Some(Self(Storage::Shared(bytes, range, PhantomData)))
    }

    /// Whether the numbers are lent by shared bytes.
    pub const fn is_shared(&self) -> bool {
        matches!(self.0, Storage::Shared(..))
    }

    /// The numbers in memory of their own, copied only when they are lent.
    pub fn into_vec(self) -> Vec<T> {
        match self.0 {
            Storage::Owned(numbers) => numbers,
            Storage::Shared(..) => self.to_vec(),
        }
    }
}

impl<T> From<Vec<T>> for Array<T> {
    fn from(numbers: Vec<T>) -> Self {
        Self(Storage::Owned(numbers))
    }
}

impl<T> Default for Array<T> {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl<T: Pod> Deref for Array<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Storage::Owned(numbers) => numbers,
            Storage::Shared(bytes, range, _) => bytemuck::cast_slice(&bytes.as_ref().as_ref()[range.clone()]),
        }
    }
}

impl<T: Pod> DerefMut for Array<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        if self.is_shared() {
            *self = self.to_vec().into();
        }
        match &mut self.0 {
            Storage::Owned(numbers) => numbers,
            Storage::Shared(..) => unreachable!("lent numbers were copied"),
        }
    }
}

impl<T: Pod + PartialEq> PartialEq for Array<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lent_numbers_are_read_in_place_and_copied_by_the_first_write() {
        let bytes: SharedBytes = Arc::new(bytemuck::cast_slice::<u64, u8>(&[1, 2, 3]).to_vec());
        // A vector of bytes need not be aligned; either way the numbers are the same.
        let mut array = Array::<u32>::shared(Arc::clone(&bytes), 8..24).expect("within");
        assert_eq!(*array, [2, 0, 3, 0]);
        let before = array.clone();
        array[1] = 7;
        assert!(!array.is_shared());
        assert_eq!((&*array, &*before), (&[2, 7, 3, 0][..], &[2, 0, 3, 0][..]));
        assert_eq!(before.into_vec(), [2, 0, 3, 0]);
    }

    #[test]
    fn ranges_beyond_the_bytes_or_of_broken_numbers_are_none_and_unaligned_ones_are_copied() {
        struct Words(Vec<u64>);
        impl AsRef<[u8]> for Words {
            fn as_ref(&self) -> &[u8] {
                bytemuck::cast_slice(&self.0)
            }
        }
        let bytes: SharedBytes = Arc::new(Words(vec![0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]));
        let shared = |range: Range<usize>| Array::<u32>::shared(Arc::clone(&bytes), range);
        assert!(shared(0..20).is_none() && shared(12..16).is_some() && shared(0..6).is_none());
        let aligned = shared(4..8).expect("within");
        assert!(aligned.is_shared() && *aligned == [0x0706_0504]);
        let unaligned = shared(2..6).expect("within");
        assert!(!unaligned.is_shared() && *unaligned == [0x0504_0302]);
    }
}
