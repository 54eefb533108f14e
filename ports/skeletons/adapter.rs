// An adapter to copy and grow, in Rust with its standard library alone: see docs/PORTING.md.
//
//     rustc -O -o adapter adapter.rs
//     gemma4-conformance run --port ./adapter --cases 'module/rms-norm/*'

use std::collections::BTreeMap;
use std::convert::TryInto;
use std::error::Error;
use std::io::{self, BufRead, Write};
use std::{fs, iter, str};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

// ---- The modules, in plain loops: put calls of your port in their place ----

#[derive(Clone)]
struct Tensor<T> {
    shape: Vec<usize>,
    data: Vec<T>, // row-major
}

#[derive(Default)]
struct Inputs {
    floats: BTreeMap<String, Tensor<f32>>,
    #[allow(dead_code)] // ids and positions: embedding and rope will read them
    ints: BTreeMap<String, Tensor<i32>>,
}

type Taps = BTreeMap<String, Tensor<f32>>;
type Module = fn(params: &Json, inputs: &Inputs) -> Result<Taps>;

const MODULES: [(&str, Module); 2] = [("rms_norm", rms_norm), ("softcap", softcap)];

/// x [..., D], weight [D] or absent -> y [..., D] = x / sqrt(mean(x^2) + eps) * weight
fn rms_norm(params: &Json, inputs: &Inputs) -> Result<Taps> {
    let eps: f64 = params.bare("eps")?.parse()?;
    let mut y = inputs.floats.get("x").ok_or("no x")?.clone(); // normalised in place, row by row
    let width = *y.shape.last().ok_or("x has no axis")?;
    let weight = match inputs.floats.get("weight") {
        Some(weight) => weight.data.clone(),
        None => vec![1.0; width],
    };
    if weight.len() != width {
        return Err("weight does not fit x".into());
    }
    for row in y.data.chunks_mut(width.max(1)) {
        let squares: f64 = row.iter().map(|&x| f64::from(x).powi(2)).sum();
        let root = (squares / width as f64 + eps).sqrt();
        for (x, w) in row.iter_mut().zip(&weight) {
            *x = (f64::from(*x) / root * f64::from(*w)) as f32;
        }
    }
    Ok(Taps::from([("y".into(), y)]))
}

/// x [B, L, V] -> y [B, L, V] = cap * tanh(x / cap)
fn softcap(params: &Json, inputs: &Inputs) -> Result<Taps> {
    let cap: f64 = params.bare("cap")?.parse()?;
    let mut y = inputs.floats.get("x").ok_or("no x")?.clone();
    for x in &mut y.data {
        *x = (cap * (f64::from(*x) / cap).tanh()) as f32;
    }
    Ok(Taps::from([("y".into(), y)]))
}

// ---- The protocol: a line of JSON in, a line of JSON out ----

fn main() -> io::Result<()> {
    for line in io::stdin().lock().split(b'\n') {
        let (seq, answered) = match parse(&line?) {
            Ok(asked) if matches!(asked.text("cmd"), Ok("stop")) => break,
            Ok(asked) => (asked.bare("seq").ok().map(String::from), answer(&asked)),
            Err(error) => (None, Err(error)),
        };
        let said = answered.unwrap_or_else(|error| pair("error", &error.to_string()));
        match seq {
            Some(seq) => println!(r#"{{"seq": {seq}, {said}}}"#),
            None => println!("{{{said}}}"), // "hello" and "load" have none
        }
        io::stdout().flush()?; // the judge waits for the line
    }
    Ok(())
}

/// What follows "seq" in the answer to a line.
fn answer(asked: &Json) -> Result<String> {
    match asked.text("cmd")? {
        "hello" => Ok(hello()),
        "load" => Err("no models yet".into()), // of "model_dir": layer and forward cases need one
        "run" => run(asked),
        _ => Ok(pair("skipped", "not yet")), // "prompt", "tokenize"
    }
}

fn hello() -> String {
    let me = r#"{"name": "my port", "version": "0.1", "language": "Rust"}"#;
    let kinds = MODULES.map(|(kind, _)| quote(kind)).join(", ");
    format!(r#""protocol": 1, "implementation": {me}, "profiles": ["f32"], "kinds": [{kinds}]"#)
}

fn run(asked: &Json) -> Result<String> {
    let kind = asked.text("kind")?;
    let Some((_, module)) = MODULES.iter().find(|(name, _)| *name == kind) else {
        return Ok(pair("skipped", "not yet"));
    };
    let inputs = match asked.text("inputs") {
        Ok(path) => read(path)?,
        Err(_) => Inputs::default(), // null for kinds without tensors
    };
    let taps = module(asked.get("params").ok_or("no params")?, &inputs)?;
    write(asked.text("out")?, &taps)?; // "want" names them, should you have more
    Ok(r#""ok": true"#.into())
}

// ---- Safetensors: the header's length in eight bytes, the header in JSON, the tensors' bytes ----

fn read(path: &str) -> Result<Inputs> {
    let file = fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    let broken = || format!("{path}: no safetensors file");
    let length = file.get(..8).ok_or_else(broken)?.try_into()?;
    let length = u64::from_le_bytes(length) as usize;
    let header = file[8..].get(..length).ok_or_else(broken)?;
    let data = &file[8 + length..];
    let Json::Object(entries) = parse(header)? else {
        return Err(broken().into());
    };
    let mut inputs = Inputs::default();
    for (name, entry) in entries.into_iter().filter(|m| m.0 != "__metadata__") {
        match entry.text("dtype")? {
            "F32" => {
                let tensor = tensor(&entry, data, f32::from_le_bytes)?;
                inputs.floats.insert(name, tensor);
            }
            "I32" => {
                let tensor = tensor(&entry, data, i32::from_le_bytes)?;
                inputs.ints.insert(name, tensor);
            }
            dtype => return Err(format!("{name}: got dtype {dtype}, expected F32 or I32").into()),
        }
    }
    Ok(inputs)
}

fn tensor<T>(entry: &Json, data: &[u8], decode: fn([u8; 4]) -> T) -> Result<Tensor<T>> {
    let shape = entry.sizes("shape")?;
    let bytes = match entry.sizes("data_offsets")?[..] {
        [from, to] => data.get(from..to).ok_or("data_offsets: not in the file")?,
        _ => return Err("data_offsets: expected two".into()),
    };
    if bytes.len() != shape.iter().fold(4, |n: usize, m| n.saturating_mul(*m)) {
        return Err("shape: the data do not fit it".into());
    }
    let words = bytes.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
    let data = words.map(decode).collect();
    Ok(Tensor { shape, data })
}

fn write(path: &str, taps: &Taps) -> Result<()> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (name, tensor) in taps {
        let (name, shape, from) = (quote(name), &tensor.shape, data.len());
        data.extend(tensor.data.iter().flat_map(|value| value.to_le_bytes()));
        let offsets = [from, data.len()];
        entries.push(format!(
            r#"{name}: {{"dtype": "F32", "shape": {shape:?}, "data_offsets": {offsets:?}}}"#
        ));
    }
    let mut header = format!("{{{}}}", entries.join(", ")).into_bytes();
    header.resize(header.len().next_multiple_of(8), b' '); // the data begin at a multiple of 8
    let length = (header.len() as u64).to_le_bytes();
    fs::write(path, [&length[..], &header, &data].concat())
        .map_err(|error| format!("{path}: {error}").into())
}

// ---- JSON: what the protocol needs. In a real port a crate such as serde_json replaces it ----

enum Json {
    Bare(String), // a number, true, false or null, as it was written
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>), // in the order they came in: prompts need it
}

impl Json {
    fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members.iter().find(|m| m.0 == key).map(|m| &m.1),
            _ => None,
        }
    }

    fn text(&self, key: &str) -> Result<&str> {
        match self.get(key) {
            Some(Json::Text(text)) => Ok(text),
            _ => Err(format!("{key}: expected a string").into()),
        }
    }

    fn bare(&self, key: &str) -> Result<&str> {
        match self.get(key) {
            Some(Json::Bare(word)) => Ok(word),
            _ => Err(format!("{key}: expected a number").into()),
        }
    }

    fn sizes(&self, key: &str) -> Result<Vec<usize>> {
        let size = |item: &Json| match item {
            Json::Bare(word) => Ok(word.parse()?),
            _ => Err(format!("{key}: expected sizes").into()),
        };
        match self.get(key) {
            Some(Json::List(items)) => items.iter().map(size).collect(),
            _ => Err(format!("{key}: expected a list").into()),
        }
    }
}

type Chars<'a> = iter::Peekable<str::Chars<'a>>;

fn parse(line: &[u8]) -> Result<Json> {
    let mut text = str::from_utf8(line)?.chars().peekable();
    let json = value(&mut text).filter(|_| peek(&mut text).is_none());
    json.ok_or_else(|| "this is no JSON".into())
}

/// The next character that is no white space, not yet taken.
fn peek(text: &mut Chars) -> Option<char> {
    while text.next_if(char::is_ascii_whitespace).is_some() {}
    text.peek().copied()
}

fn value(text: &mut Chars) -> Option<Json> {
    let bare = |c: &char| c.is_ascii_alphanumeric() || "+-.".contains(*c);
    Some(match peek(text)? {
        '{' => Json::Object(items(text, '}', member)?),
        '[' => Json::List(items(text, ']', value)?),
        '"' => Json::Text(string(text)?),
        _ => Json::Bare(iter::from_fn(|| text.next_if(bare)).collect()),
    })
}

/// What stands between two brackets.
fn items<T>(text: &mut Chars, close: char, item: fn(&mut Chars) -> Option<T>) -> Option<Vec<T>> {
    let mut items = Vec::new();
    text.next(); // the opening one
    while peek(text)? != close {
        if !items.is_empty() {
            text.next_if_eq(&',')?;
        }
        items.push(item(text)?);
    }
    text.next();
    Some(items)
}

fn member(text: &mut Chars) -> Option<(String, Json)> {
    peek(text);
    let key = string(text)?;
    peek(text);
    text.next_if_eq(&':')?;
    Some((key, value(text)?))
}

fn string(text: &mut Chars) -> Option<String> {
    let mut units = Vec::new(); // of UTF-16, as \u escapes are: two surrogates find each other
    text.next_if_eq(&'"')?;
    loop {
        let mut c = text.next()?;
        if c == '"' {
            return String::from_utf16(&units).ok(); // none for a lone surrogate: it has no UTF-8
        }
        if c == '\\' {
            c = match text.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let digits: String = text.take(4).collect();
                    units.push(u16::from_str_radix(&digits, 16).ok()?);
                    continue;
                }
                quoted => quoted,
            };
        }
        units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
    }
}

fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\0'..='\u{1f}' => quoted += &format!("\\u{:04x}", u32::from(c)),
            _ => quoted.push(c),
        }
    }
    quoted + "\""
}

fn pair(key: &str, text: &str) -> String {
    format!(r#""{key}": {}"#, quote(text))
}
