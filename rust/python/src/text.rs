//! Python strings as UTF-8, whatever they hold.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyBytes, PyString};

/// The string without a copy where it is UTF-8; lone surrogates, which no UTF-8 holds, become U+FFFD.
pub fn utf8(text: &Bound<'_, PyString>) -> PyResult<PyBackedStr> {
    match PyBackedStr::try_from(text.clone()) {
        Ok(text) => Ok(text),
        Err(_) => without_surrogates(text),
    }
}

#[cold]
fn without_surrogates(text: &Bound<'_, PyString>) -> PyResult<PyBackedStr> {
    let encoded = text.call_method1("encode", ("utf-8", "surrogatepass"))?.cast_into::<PyBytes>()?;
    let mut bytes = encoded.as_bytes().to_vec();
    // A surrogate is ED A0..BF xx, which no other character starts with; U+FFFD has three bytes too.
    for place in 0..bytes.len().saturating_sub(2) {
        if bytes[place] == 0xed && bytes[place + 1] >= 0xa0 {
            bytes[place..place + 3].copy_from_slice("\u{fffd}".as_bytes());
        }
    }
    PyBackedStr::try_from(PyString::new(text.py(), &String::from_utf8_lossy(&bytes)))
}

/// Every item of a sequence of strings; the index and type of the first that is none.
pub fn utf8_items(texts: &Bound<'_, PyAny>) -> PyResult<Vec<PyBackedStr>> {
    if texts.is_instance_of::<PyString>() || texts.is_instance_of::<PyBytes>() {
        let kind = texts.get_type().name()?;
        return Err(PyTypeError::new_err(format!("texts must be a sequence of str, got one {kind}: put it in a list")));
    }
    let mut items = Vec::with_capacity(texts.len()?);
    for (index, item) in texts.try_iter()?.enumerate() {
        let item = item?;
        let text = item.cast::<PyString>().map_err(|_| match item.get_type().name() {
            Ok(kind) => PyTypeError::new_err(format!("texts[{index}] must be str, got {kind}")),
            Err(error) => error,
        })?;
        items.push(utf8(text)?);
    }
    Ok(items)
}
