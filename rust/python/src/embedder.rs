//! `Tokenizer` and `StaticEmbedder`: text to token ids and to rows, without ONNX Runtime.

use bytes::Bytes;
use centroute_core::Isa;
use centroute_core::artifact::{N_SURFACE_FEATURES, Surface};
use centroute_embed as embed;
use centroute_embed::PrefixedTokenizer;
use centroute_embed::prefixed::{self, Settings};
use centroute_embed::safetensors_table::Names;
use centroute_embed::surface;
use centroute_embed::tokenizer::Options;
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyString;

use crate::errors::{EmbedderError, raise};
use crate::text::{utf8, utf8_items};
use crate::threads::in_parts;

/// Texts that a thread takes at a time.
const TEXTS_PER_PART: usize = 64;

type Flat<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i64>>);

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn refuse(error: embed::Error) -> PyErr {
    EmbedderError::new_err(error.to_string())
}

/// A loaded `tokenizer.json`. Immutable and shareable between threads.
#[pyclass(frozen, module = "centroute._kernel")]
pub struct Tokenizer(embed::Tokenizer);

#[pymethods]
impl Tokenizer {
    #[new]
    #[pyo3(signature = (json, *, max_tokens))]
    fn new(py: Python<'_>, json: &[u8], max_tokens: usize) -> PyResult<Self> {
        let options = Options { max_tokens, add_special_tokens: true };
        py.detach(|| embed::Tokenizer::from_json(json, options)).map(Self).map_err(refuse)
    }

    /// One more than the highest id.
    #[getter]
    fn n_token_ids(&self) -> usize {
        self.0.n_token_ids()
    }

    /// Why texts are left to the `tokenizers` crate, `None` where they are not.
    #[getter]
    fn fallback_reason(&self) -> Option<&str> {
        self.0.fallback_reason()
    }

    /// Ids of all texts one after another, where each text's end, and how many of its ids are known tokens.
    fn encode_batch<'py>(&self, py: Python<'py>, texts: &Bound<'py, PyAny>) -> PyResult<Flat<'py>> {
        let texts = utf8_items(texts)?;
        let (mut ids, mut ends, mut n_known) =
            (Vec::new(), Vec::with_capacity(texts.len()), Vec::with_capacity(texts.len()));
        py.detach(|| {
            let (mut scratch, mut text_ids) = (embed::tokenizer::Scratch::default(), Vec::new());
            for text in &texts {
                self.0.encode(text, &mut scratch, &mut text_ids);
                ids.extend(text_ids.iter().map(|&id| i64::from(id)));
                ends.push(ids.len().cast_signed() as i64);
                n_known.push(self.0.n_known(&text_ids).cast_signed() as i64);
            }
        });
        Ok((ids.into_pyarray(py), ends.into_pyarray(py), n_known.into_pyarray(py)))
    }
}

/// Tokenizer and table of a static embedder. Immutable and shareable between threads.
#[pyclass(frozen, module = "centroute._kernel")]
pub struct StaticEmbedder(pub embed::StaticEmbedder);

#[pymethods]
impl StaticEmbedder {
    /// Reads the table out of a `model.onnx`; `None` where its graph is not that of a static embedder.
    #[staticmethod]
    #[pyo3(signature = (model, tokenizer, *, max_tokens, prefix))]
    fn from_onnx(
        py: Python<'_>,
        model: &[u8],
        tokenizer: &[u8],
        max_tokens: usize,
        prefix: String,
    ) -> PyResult<Option<Self>> {
        let isa = Isa::from_environment().map_err(raise)?;
        py.detach(|| {
            let Some(table) = embed::onnx::read_table(Bytes::copy_from_slice(model))? else { return Ok(None) };
            let tokenizer = embed::Tokenizer::from_json(tokenizer, Options { max_tokens, add_special_tokens: true })?;
            let tokenizer = PrefixedTokenizer::new(tokenizer, Settings { prefix, max_characters: None });
            embed::StaticEmbedder::new(tokenizer, table, isa).map(Self).map(Some)
        })
        .map_err(refuse)
    }

    /// Reads the table out of a safetensors file by the names of its tensors.
    #[staticmethod]
    #[pyo3(signature = (file, tokenizer, *, rows, weights, mapping, max_tokens, prefix, max_characters, add_special_tokens, drop_unknown))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of the binding")]
    fn from_safetensors(
        py: Python<'_>,
        file: &[u8],
        tokenizer: &[u8],
        rows: &str,
        weights: Option<&str>,
        mapping: Option<&str>,
        max_tokens: usize,
        prefix: String,
        max_characters: Option<usize>,
        add_special_tokens: bool,
        drop_unknown: bool,
    ) -> PyResult<Self> {
        let isa = Isa::from_environment().map_err(raise)?;
        py.detach(|| {
            let mut table = embed::safetensors_table::read_table(file, Names { rows, weights, mapping })?;
            let tokenizer = embed::Tokenizer::from_json(tokenizer, Options { max_tokens, add_special_tokens })?;
            if drop_unknown && let Some(id) = tokenizer.unknown_id() {
                table.silence(id);
            }
            let tokenizer = PrefixedTokenizer::new(tokenizer, Settings { prefix, max_characters });
            embed::StaticEmbedder::new(tokenizer, table, isa).map(Self)
        })
        .map_err(refuse)
    }

    #[getter]
    fn dim(&self) -> usize {
        self.0.dim()
    }

    /// Why texts are left to the `tokenizers` crate, `None` where they are not.
    #[getter]
    fn fallback_reason(&self) -> Option<&str> {
        self.0.tokenizer().tokenizer().fallback_reason()
    }

    /// Rows float32 `[n, dim]`, of norm 1 or, for texts without a known token, zero.
    #[pyo3(signature = (texts, *, threads=1))]
    fn embed<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
        threads: usize,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let texts = utf8_items(texts)?;
        let mut rows = vec![0.0; texts.len() * self.0.dim()];
        py.detach(|| self.embed_rows(&texts, None, threads, &mut rows));
        rows.into_pyarray(py).reshape([texts.len(), self.0.dim()])
    }

    /// One more than the highest id.
    #[getter]
    fn n_token_ids(&self) -> usize {
        self.0.tokenizer().tokenizer().n_token_ids()
    }

    /// Ids of a text's tokens, the prefix's first.
    fn tokenize<'py>(&self, text: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let mut scratch = prefixed::Scratch::default();
        self.0.tokenizer().tokenize(&utf8(text)?, &mut scratch);
        Ok(PyArray1::from_iter(text.py(), scratch.token_ids().iter().map(|&id| i64::from(id))))
    }
}

impl StaticEmbedder {
    /// Rows of texts with their surface features, where a router wants them, on up to `threads` threads.
    pub fn embed_rows(&self, texts: &[PyBackedStr], surface: Option<&Surface>, threads: usize, rows: &mut [f32]) {
        let dim = self.0.dim() + surface.map_or(0, Surface::n_features);
        let parts = texts.chunks(TEXTS_PER_PART).zip(rows.chunks_mut(TEXTS_PER_PART * dim));
        in_parts(parts, threads, embed::Scratch::default, |scratch, (texts, rows)| {
            for (text, row) in texts.iter().zip(rows.chunks_exact_mut(dim)) {
                self.0.embed(text, surface, scratch, row);
            }
        });
    }
}

/// Surface features of texts, float32 `[n, 20]`, of the largest set; `centroute.surface` is their definition.
#[pyfunction]
pub fn surface_features<'py>(py: Python<'py>, texts: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let texts = utf8_items(texts)?;
    let rows: Vec<f32> = py.detach(|| {
        let mut scratch = surface::Scratch::default();
        texts.iter().flat_map(|text| surface::features(text, N_SURFACE_FEATURES, &mut scratch)).collect()
    });
    rows.into_pyarray(py).reshape([texts.len(), N_SURFACE_FEATURES])
}
