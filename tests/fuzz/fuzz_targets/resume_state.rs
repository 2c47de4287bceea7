//! See `sendshot_fuzzing::resume_state`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sendshot_fuzzing::resume_state;

fuzz_target!(|input: &[u8]| resume_state::run(input));
