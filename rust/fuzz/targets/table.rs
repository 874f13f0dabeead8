#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| centroute_fuzz::table::run(data));
