//! Data that a file system cannot take compressed, unpacked.

pub(crate) mod decompress;
pub(crate) mod lzo;
