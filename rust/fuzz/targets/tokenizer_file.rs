#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| centroute_fuzz::tokenizer_file::run(data));
