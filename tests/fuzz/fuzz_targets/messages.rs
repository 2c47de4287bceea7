//! See `sendshot_fuzzing::messages`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sendshot_fuzzing::messages;

fuzz_target!(|input: &[u8]| messages::run(input));
