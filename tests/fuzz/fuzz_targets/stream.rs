//! See `sendshot_fuzzing::stream`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sendshot_fuzzing::stream;

fuzz_target!(|input: &[u8]| stream::run(input));
