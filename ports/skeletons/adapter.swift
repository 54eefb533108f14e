// An adapter to copy and grow, in Swift with Foundation alone: see docs/PORTING.md.
//
//     swiftc -O -o adapter adapter.swift
//     gemma4-conformance run --port ./adapter --cases 'module/rms-norm/*'

import Foundation

struct Fault: LocalizedError {
    let errorDescription: String?
    init(_ why: String) { errorDescription = why }
}

// ---- The modules, in plain loops: put calls of your port in their place ----

struct Tensor<Element> {
    var shape: [Int]
    var data: [Element]  // row-major
}

struct Inputs {
    var floats: [String: Tensor<Float>] = [:]
    var ints: [String: Tensor<Int32>] = [:]  // ids and positions: embedding and rope will read them

    func need(_ name: String) throws -> Tensor<Float> {
        guard let tensor = floats[name] else { throw Fault("no \(name)") }
        return tensor
    }
}

typealias Params = [String: Any]
typealias Taps = [String: Tensor<Float>]

enum Port {
    static var modules: [String: (Params, Inputs) throws -> Taps] { ["rms_norm": rmsNorm, "softcap": softcap] }
}

/// x [..., D], weight [D] or absent -> y [..., D] = x / sqrt(mean(x^2) + eps) * weight
func rmsNorm(_ params: Params, _ inputs: Inputs) throws -> Taps {
    let eps = try params.number("eps")
    var y = try inputs.need("x")  // normalised in place, row by row
    guard let width = y.shape.last else { throw Fault("x has no axis") }
    let weight = inputs.floats["weight"]?.data ?? [Float](repeating: 1, count: width)
    guard weight.count == width else { throw Fault("weight does not fit x") }
    for row in stride(from: 0, to: y.data.count, by: max(width, 1)) {
        let squares = y.data[row..<row + width].reduce(0) { $0 + Double($1) * Double($1) }
        let root = (squares / Double(width) + eps).squareRoot()
        for i in 0..<width {
            y.data[row + i] = Float(Double(y.data[row + i]) / root * Double(weight[i]))
        }
    }
    return ["y": y]
}

/// x [B, L, V] -> y [B, L, V] = cap * tanh(x / cap)
func softcap(_ params: Params, _ inputs: Inputs) throws -> Taps {
    let cap = try params.number("cap")
    let x = try inputs.need("x")
    return ["y": Tensor(shape: x.shape, data: x.data.map { Float(cap * tanh(Double($0) / cap)) })]
}

// ---- JSON: Foundation reads it, but loses the order of keys: prompts will need another reader ----

extension Dictionary where Key == String, Value == Any {
    func text(_ key: String) throws -> String {
        guard let text = self[key] as? String else { throw Fault("\(key): expected a string") }
        return text
    }

    func number(_ key: String) throws -> Double {
        guard let number = self[key] as? NSNumber else { throw Fault("\(key): expected a number") }
        return number.doubleValue
    }

    func sizes(_ key: String) throws -> [Int] {
        let sizes = self[key] as? [Int] ?? [-1]
        guard sizes.allSatisfy({ $0 >= 0 }) else { throw Fault("\(key): expected sizes") }
        return sizes
    }
}

func parse(_ json: Data) throws -> [String: Any] {
    guard let object = try JSONSerialization.jsonObject(with: json) as? [String: Any] else {
        throw Fault("JSON: expected an object")
    }
    return object
}

// ---- Safetensors: the header's length in eight bytes, the header in JSON, the tensors' bytes ----
// Both are little-endian, as this machine is assumed to be.

func read(_ path: String) throws -> Inputs {
    guard let file = FileManager.default.contents(atPath: path) else {
        throw Fault("\(path): cannot be read")
    }
    let length = file.prefix(8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    guard file.count >= 8, length <= UInt64(file.count - 8) else {
        throw Fault("\(path): no safetensors file")
    }
    let start = 8 + Int(length)
    let data = file.subdata(in: start..<file.count)
    var inputs = Inputs()
    for (name, value) in try parse(file.subdata(in: 8..<start)) where name != "__metadata__" {
        guard let entry = value as? [String: Any] else { throw Fault("\(name): expected an object") }
        switch try entry.text("dtype") {
        case "F32": inputs.floats[name] = try tensor(entry, data, zero: 0)
        case "I32": inputs.ints[name] = try tensor(entry, data, zero: 0)
        case let dtype: throw Fault("\(name): got dtype \(dtype), expected F32 or I32")
        }
    }
    return inputs
}

func tensor<T>(_ entry: [String: Any], _ data: Data, zero: T) throws -> Tensor<T> {
    let shape = try entry.sizes("shape")
    let offsets = try entry.sizes("data_offsets")
    guard offsets.count == 2, offsets[0] <= offsets[1], offsets[1] <= data.count else {
        throw Fault("data_offsets: no such data")
    }
    let bytes = offsets[1] - offsets[0]
    let width = MemoryLayout<T>.size
    // A Double, which no product of sizes overflows.
    guard shape.reduce(Double(width), { $0 * Double($1) }) == Double(bytes) else {
        throw Fault("shape: the data do not fit it")
    }
    var values = [T](repeating: zero, count: bytes / width)
    // A copy byte by byte, since the values of a file need not be aligned.
    _ = values.withUnsafeMutableBytes { data.copyBytes(to: $0, from: offsets[0]..<offsets[1]) }
    return Tensor(shape: shape, data: values)
}

func write(_ path: String, _ taps: Taps) throws {
    var entries: [String: Any] = [:]
    var data = Data()
    for (name, tensor) in taps {
        let from = data.count
        tensor.data.withUnsafeBytes { data.append(contentsOf: $0) }
        let entry: [String: Any] = ["dtype": "F32", "shape": tensor.shape, "data_offsets": [from, data.count]]
        entries[name] = entry
    }
    var header = try JSONSerialization.data(withJSONObject: entries)
    while header.count % 8 != 0 { header.append(UInt8(ascii: " ")) }  // the data begin at a multiple of 8
    var file = withUnsafeBytes(of: UInt64(header.count).littleEndian) { Data($0) }
    file.append(header)
    file.append(data)
    try file.write(to: URL(fileURLWithPath: path))
}

// ---- The protocol: a line of JSON in, a line of JSON out ----

func hello() -> [String: Any] {
    let me = ["name": "my port", "version": "0.1", "language": "Swift"]
    return ["protocol": 1, "implementation": me, "profiles": ["f32"], "kinds": Port.modules.keys.sorted()]
}

func run(_ asked: [String: Any]) throws -> [String: Any] {
    let kind = try asked.text("kind")
    guard let module = Port.modules[kind] else { return ["skipped": "not yet"] }
    let inputs = try (asked["inputs"] as? String).map(read) ?? Inputs()  // null for kinds without tensors
    guard let params = asked["params"] as? Params else { throw Fault("no params") }
    try write(asked.text("out"), module(params, inputs))  // "want" names the taps, should you have more
    return ["ok": true]
}

/// The answer to a line, without "seq".
func answer(_ asked: [String: Any]) throws -> [String: Any] {
    switch try asked.text("cmd") {
    case "hello": return hello()
    case "load": throw Fault("no models yet")  // of "model_dir": layer and forward cases need one
    case "run": return try run(asked)
    default: return ["skipped": "not yet"]  // "prompt", "tokenize"
    }
}

while let line = readLine() {
    var asked: [String: Any] = [:]
    var said: [String: Any]
    do {
        asked = try parse(Data(line.utf8))
        if asked["cmd"] as? String == "stop" { break }
        said = try answer(asked)
    } catch {
        said = ["error": error.localizedDescription]
    }
    said["seq"] = asked["seq"]  // "hello" and "load" have none
    let text = try JSONSerialization.data(withJSONObject: said)
    FileHandle.standardOutput.write(text + Data("\n".utf8))  // unbuffered: the judge waits for the line
}
