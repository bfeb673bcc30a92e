#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pmesh_fuzz::rpc::check(data));
