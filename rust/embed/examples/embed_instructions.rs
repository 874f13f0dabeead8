//! Runs one kind of work on a few texts a number of times, for `benches/instructions.py` to count its instructions.
//!
//! Usage: `embed_instructions ISA tokenize|embed|surface|scripts TIMES`, with `serial` or `avx2`.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;

use centroute_core::Isa;
use centroute_core::artifact::SURFACE_SETS;
use centroute_embed::prefixed::Settings;
use centroute_embed::tokenizer::Options;
use centroute_embed::{PrefixedTokenizer, Scratch, StaticEmbedder, Tokenizer, onnx, surface};

const TEXTS: [&str; 4] = [
    "What is the capital of France?",
    "Write a Python function that merges two sorted lists:\n\ndef merge(left, right):\n    # return one sorted list\n",
    "A train leaves at 3:15 p.m. with 240 passengers; at each of 4 stops 12.5 % of them leave. How many are left? \
     Explain antidisestablishmentarianism, too.",
    "Übersetze: „Die Straße ist naß.“ Et l'été à Besançon? 東京は晴れです。 Где библиотека? 🙂",
];

fn run(isa: Isa, work: &str, times: usize) -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/static-256");
    let options = Options { max_tokens: 256, add_special_tokens: true };
    let tokenizer = Tokenizer::from_json(&std::fs::read(folder.join("tokenizer.json"))?, options)?;
    let table = onnx::read_table(std::fs::read(folder.join("model.onnx"))?.into())?.ok_or("no static graph")?;
    let embedder = StaticEmbedder::new(PrefixedTokenizer::new(tokenizer, Settings::default()), table, isa)?;
    let (mut scratch, mut row) = (Scratch::default(), vec![0.0; embedder.dim()]);
    let mut surface_scratch = surface::Scratch::default();
    for _ in 0..times {
        for text in TEXTS {
            match work {
                "tokenize" => {
                    embedder.tokenizer().tokenize(black_box(text), &mut scratch.tokens);
                    black_box(scratch.tokens.token_ids());
                }
                "embed" => {
                    black_box(embedder.embed(black_box(text), None, &mut scratch, &mut row));
                }
                "surface" => {
                    black_box(surface::features(black_box(text), SURFACE_SETS[0].1, &mut surface_scratch));
                }
                "scripts" => {
                    black_box(surface::features(black_box(text), surface::N_FEATURES, &mut surface_scratch));
                }
                _ => return Err(format!("no work is called {work}").into()),
            }
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, isa, work, times] = arguments.as_slice() else {
        return Err("usage: embed_instructions ISA tokenize|embed|surface|scripts TIMES".into());
    };
    let isa = Isa::ALL.into_iter().find(|candidate| candidate.name() == isa && candidate.is_available());
    run(isa.ok_or("the instruction set is not to be had here")?, work, times.parse()?)
}
