//! See `sendshot_tests::fuzzing::sendshot`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sendshot_tests::fuzzing::sendshot;

fuzz_target!(|input: &[u8]| sendshot::run(input));
