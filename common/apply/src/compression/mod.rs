//! Decompresses data that a file system cannot store compressed.

pub(crate) mod decompress;
pub(crate) mod lzo;
