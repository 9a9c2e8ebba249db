#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| prequeue_fuzz::tcb(bytes));
