//! See `sendshot_fuzzing::sendshot`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sendshot_fuzzing::sendshot;

fuzz_target!(|input: &[u8]| sendshot::run(input));
