//! Values as they are kept: one byte for the format, then the bytes.

use serde::{Serialize, de::DeserializeOwned};

use super::CqlError;

/// MessagePack with names of fields, so that fields may be added.
const NAMED: u8 = 1;
/// First byte of a value that is sealed by the key of a subject, for those who keep such values: the rest is what sealing
/// gave. [`decode`] refuses it; to be opened first.
pub const SEALED: u8 = 2;

/// The bytes of a record.
pub fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    let mut bytes = vec![NAMED];
    rmp_serde::encode::write_named(&mut bytes, record).expect("records are plain data, which always serialises");
    bytes
}

/// Reads the bytes of a record; `what` names it in the error.
///
/// # Errors
/// [`CqlError::Damaged`] when they are not of this record, or of a format that this program does not know.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, CqlError> {
    let damaged = |cause: String| CqlError::Damaged { what, cause };
    match bytes.split_first() {
        Some((&NAMED, rest)) => rmp_serde::from_slice(rest).map_err(|cause| damaged(cause.to_string())),
        Some((format, _)) => {
            Err(damaged(format!("format {format} is not known; a newer EchoTune may have written it")))
        }
        None => Err(damaged("it is empty".into())),
    }
}
