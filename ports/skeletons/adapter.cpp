// An adapter to copy and grow, in C++17 with its standard library alone: see docs/PORTING.md.
//
//     c++ -std=c++17 -O2 -o adapter adapter.cpp
//     gemma4-conformance run --port ./adapter --cases 'module/rms-norm/*'

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

[[noreturn]] void fail(const std::string& why) { throw std::runtime_error(why); }

// ---- JSON: what the protocol needs. In a real port a library such as nlohmann/json replaces it ----

struct Json {
  enum Type { Bare, Text, List, Object } type = Bare;
  std::string text;               // of Text; of Bare: a number, true, false or null, as it was written
  std::vector<std::string> keys;  // of Object, in the order they came in: prompts need it
  std::vector<Json> items;        // of List; of Object: the values of its keys

  // Null where there is no such member, or one of another type.
  const Json* find(const std::string& key, Type wanted) const {
    const auto at = std::find(keys.begin(), keys.end(), key);
    if (at == keys.end()) return nullptr;
    const Json& item = items[static_cast<std::size_t>(at - keys.begin())];
    return item.type == wanted ? &item : nullptr;
  }
  const Json& get(const std::string& key, Type wanted) const {
    const Json* found = find(key, wanted);
    if (found == nullptr) fail(key + ": missing, or of another type");
    return *found;
  }
  double number(const std::string& key) const { return std::stod(get(key, Bare).text); }

  std::vector<std::size_t> sizes(const std::string& key) const {
    std::vector<std::size_t> sizes;
    for (const Json& item : get(key, List).items) sizes.push_back(std::stoull(item.text));
    return sizes;
  }
};

class JsonReader {
 public:
  explicit JsonReader(const std::string& text) : text_(text) {}

  Json document() {
    Json json = value();
    if (!take("") || at_ != text_.size()) bad();
    return json;
  }

 private:
  const std::string& text_;
  std::size_t at_ = 0;

  [[noreturn]] void bad() const { fail("JSON: surprised at byte " + std::to_string(at_)); }

  // Whether this comes next, behind white space; if so it is taken.
  bool take(const std::string& token) {
    at_ = std::min(text_.find_first_not_of(" \t\r\n", at_), text_.size());
    const bool found = text_.compare(at_, token.size(), token) == 0;
    at_ += found ? token.size() : 0;
    return found;
  }
  char next() {
    if (at_ == text_.size()) bad();
    return text_[at_++];
  }
  Json value() {
    if (take("{")) return container(Json::Object, "}");
    if (take("[")) return container(Json::List, "]");
    if (take("\"")) return {Json::Text, string(), {}, {}};
    const std::size_t end = std::min(text_.find_first_of(",]} \t\r\n", at_), text_.size());
    if (end == at_) bad();
    const std::size_t begin = std::exchange(at_, end);
    return {Json::Bare, text_.substr(begin, end - begin), {}, {}};
  }
  Json container(Json::Type type, const std::string& close) {
    Json json{type, "", {}, {}};
    while (!take(close)) {
      if (!json.items.empty() && !take(",")) bad();
      if (type == Json::Object) {
        if (!take("\"")) bad();
        json.keys.push_back(string());
        if (!take(":")) bad();
      }
      json.items.push_back(value());
    }
    return json;
  }
  // The rest of a string whose first quote has been taken.
  std::string string() {
    static const std::string names = "bfnrt", meanings = "\b\f\n\r\t";
    std::string out;
    for (char c = next(); c != '"'; c = next()) {
      if (c != '\\') {
        out += c;
      } else if ((c = next()) == 'u') {
        out += utf8(code_point());
      } else {
        out += names.find(c) == names.npos ? c : meanings[names.find(c)];
      }
    }
    return out;
  }
  std::uint32_t code_point() {
    const std::uint32_t high = hex4();
    if (high < 0xD800 || high > 0xDFFF) return high;
    const std::uint32_t low = high < 0xDC00 && next() == '\\' && next() == 'u' ? hex4() : 0;
    if (low < 0xDC00 || low > 0xDFFF) bad();  // a lone surrogate has no UTF-8
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
  }
  std::uint32_t hex4() {
    const std::string digits = {next(), next(), next(), next()};  // braces: from left to right
    return static_cast<std::uint32_t>(std::stoul(digits, nullptr, 16));
  }
  static std::string utf8(std::uint32_t code) {
    const auto tail = [code](int shift) { return static_cast<char>(0x80 | (code >> shift & 0x3F)); };
    if (code < 0x80) return {static_cast<char>(code)};
    if (code < 0x800) return {static_cast<char>(0xC0 | code >> 6), tail(0)};
    if (code < 0x10000) return {static_cast<char>(0xE0 | code >> 12), tail(6), tail(0)};
    return {static_cast<char>(0xF0 | code >> 18), tail(12), tail(6), tail(0)};
  }
};

std::string quote(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    char escaped[8] = {c};
    if (c == '"' || c == '\\') std::snprintf(escaped, sizeof escaped, "\\%c", c);
    if (static_cast<unsigned char>(c) < 0x20) std::snprintf(escaped, sizeof escaped, "\\u%04x", c);
    quoted += escaped;
  }
  return quoted + "\"";
}

// ---- Safetensors: the header's length in eight bytes, the header in JSON, the tensors' bytes ----
// Both are little-endian, as this machine is assumed to be.

template <class T>
struct Tensor {
  std::vector<std::size_t> shape;
  std::vector<T> data;  // row-major
};

using Taps = std::map<std::string, Tensor<float>>;

struct Inputs {
  Taps floats;
  std::map<std::string, Tensor<std::int32_t>> ints;  // ids and positions: embedding and rope will read them
};

template <class T>
Tensor<T> tensor(const Json& entry, const std::string& data) {
  const std::vector<std::size_t> shape = entry.sizes("shape"), offsets = entry.sizes("data_offsets");
  if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > data.size()) fail("data_offsets: no such data");
  double size = sizeof(T);  // a double, which no product of sizes wraps around
  for (const std::size_t axis : shape) size *= static_cast<double>(axis);
  if (size != static_cast<double>(offsets[1] - offsets[0])) fail("shape: the data do not fit it");
  Tensor<T> tensor{shape, std::vector<T>((offsets[1] - offsets[0]) / sizeof(T))};
  std::copy(data.data() + offsets[0], data.data() + offsets[1], reinterpret_cast<char*>(tensor.data.data()));
  return tensor;
}

Inputs read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) fail(path + ": cannot be read");
  const std::string file{std::istreambuf_iterator<char>(in), {}};
  std::uint64_t length = UINT64_MAX;
  if (file.size() >= 8) std::copy_n(file.data(), 8, reinterpret_cast<char*>(&length));
  if (file.size() < 8 || length > file.size() - 8) fail(path + ": no safetensors file");
  const std::string text = file.substr(8, length), data = file.substr(8 + length);
  const Json header = JsonReader(text).document();
  Inputs inputs;
  for (const std::string& name : header.keys) {
    if (name == "__metadata__") continue;
    const Json& entry = header.get(name, Json::Object);
    const std::string& dtype = entry.get("dtype", Json::Text).text;
    if (dtype == "F32") {
      inputs.floats[name] = tensor<float>(entry, data);
    } else if (dtype == "I32") {
      inputs.ints[name] = tensor<std::int32_t>(entry, data);
    } else {
      fail(name + ": got dtype " + dtype + ", expected F32 or I32");
    }
  }
  return inputs;
}

void write(const std::string& path, const Taps& taps) {
  std::string header, data;
  for (const auto& [name, tensor] : taps) {
    std::string shape;
    for (const std::size_t axis : tensor.shape) shape += (shape.empty() ? "" : ", ") + std::to_string(axis);
    const std::string from = std::to_string(data.size());
    data.append(reinterpret_cast<const char*>(tensor.data.data()), tensor.data.size() * sizeof(float));
    header += (header.empty() ? "{" : ", ") + quote(name) + R"(: {"dtype": "F32", "shape": [)" + shape +
              R"(], "data_offsets": [)" + from + ", " + std::to_string(data.size()) + "]}";
  }
  header += header.empty() ? "{}" : "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');  // the data begin at a multiple of 8
  const std::uint64_t length = header.size();
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(&length), 8) << header << data;
  if (!out.flush()) fail(path + ": cannot be written");
}

// ---- The modules, in plain loops: put calls of your port in their place ----

const Tensor<float>& need(const Inputs& inputs, const std::string& name) {
  if (inputs.floats.count(name) == 0) fail("no " + name);
  return inputs.floats.at(name);
}

// x [..., D], weight [D] or absent -> y [..., D] = x / sqrt(mean(x^2) + eps) * weight
Taps rms_norm(const Json& params, const Inputs& inputs) {
  const double eps = params.number("eps");
  Tensor<float> y = need(inputs, "x");  // normalised in place, row by row
  if (y.shape.empty()) fail("x has no axis");
  const std::size_t width = y.shape.back();
  const bool weighted = inputs.floats.count("weight") != 0;
  const std::vector<float> weight = weighted ? need(inputs, "weight").data : std::vector<float>(width, 1.0F);
  if (weight.size() != width) fail("weight does not fit x");
  for (std::size_t row = 0; row < y.data.size(); row += width) {
    float* x = &y.data[row];  // [D]
    double squares = 0;
    for (std::size_t i = 0; i < width; ++i) squares += static_cast<double>(x[i]) * x[i];
    const double root = std::sqrt(squares / static_cast<double>(width) + eps);
    for (std::size_t i = 0; i < width; ++i) x[i] = static_cast<float>(x[i] / root * weight[i]);
  }
  return {{"y", y}};
}

// x [B, L, V] -> y [B, L, V] = cap * tanh(x / cap)
Taps softcap(const Json& params, const Inputs& inputs) {
  const double cap = params.number("cap");
  Tensor<float> y = need(inputs, "x");
  for (float& x : y.data) x = static_cast<float>(cap * std::tanh(x / cap));
  return {{"y", y}};
}

const std::map<std::string, Taps (*)(const Json& params, const Inputs& inputs)> MODULES = {
    {"rms_norm", rms_norm},
    {"softcap", softcap},
};

// ---- The protocol: a line of JSON in, a line of JSON out ----

std::string hello() {
  std::string kinds;
  for (const auto& module : MODULES) kinds += (kinds.empty() ? "" : ", ") + quote(module.first);
  return R"("protocol": 1, "implementation": {"name": "my port", "version": "0.1", "language": "C++"}, )"
         R"("profiles": ["f32"], "kinds": [)" + kinds + "]";
}

std::string run(const Json& asked) {
  const auto module = MODULES.find(asked.get("kind", Json::Text).text);
  if (module == MODULES.end()) return R"("skipped": "not yet")";
  const Json* inputs = asked.find("inputs", Json::Text);  // null for kinds without tensors
  const Taps taps = module->second(asked.get("params", Json::Object), inputs ? read(inputs->text) : Inputs{});
  write(asked.get("out", Json::Text).text, taps);  // "want" names them, should you have more
  return R"("ok": true)";
}

// What follows "seq" in the answer to a line.
std::string answer(const Json& asked) {
  const std::string& cmd = asked.get("cmd", Json::Text).text;
  if (cmd == "hello") return hello();
  if (cmd == "load") fail("no models yet");  // of "model_dir": layer and forward cases need one
  if (cmd == "run") return run(asked);
  return R"("skipped": "not yet")";  // "prompt", "tokenize"
}

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    std::string seq, said;
    try {
      const Json asked = JsonReader(line).document();
      const Json* cmd = asked.find("cmd", Json::Text);
      if (cmd != nullptr && cmd->text == "stop") break;
      const Json* number = asked.find("seq", Json::Bare);  // "hello" and "load" have none
      if (number != nullptr) seq = "\"seq\": " + number->text + ", ";
      said = answer(asked);
    } catch (const std::exception& error) {
      said = "\"error\": " + quote(error.what());
    }
    std::cout << "{" << seq << said << "}" << std::endl;  // flushed: the judge waits for the line
  }
}
