package check

import (
	"slices"
	"strconv"
	"strings"

	"ferrotrace/internal/script/ast"
)

// setting is a value of the config block, or of the environment.
type setting struct {
	text   string
	number uint64
	isNum  bool
	on     bool
}

func settingOf(x ast.Expr) (v setting) {
	switch x := x.(type) {
	case *ast.Int:
		v = setting{number: x.Value, isNum: true, on: x.Value != 0}
	case *ast.Str:
		v = setting{text: x.Value, on: x.Value == "1" || x.Value == "true"}
	case *ast.Ident:
		v.text = x.Name
	case *ast.Bool:
		v.on = x.Value
	}
	return v
}

func settingFrom(text string) setting {
	n, err := strconv.ParseUint(text, 0, 64)
	return setting{text: text, number: n, isNum: err == nil, on: text == "1" || text == "true"}
}

// settings reads the environment and then the config block, which stands above it.
func (c *checker) settings() {
	c.config = Config{MaxMapKeys: 4096, MaxCat: 10 << 10, PrintMapsOnExit: true, Missing: "error"}
	for key, text := range c.o.Settings {
		v := settingFrom(text)
		if k := configKey(key); k == "max_strlen" || k == "strlen" {
			v.number = min(v.number, maxText) // bpftrace's bound is another
		}
		if why := c.set(configKey(key), v); why != "" {
			c.errorf(c.prog, "", "%s in the environment: %s", key, why)
		}
	}
	for _, s := range c.prog.Config {
		key := configKey(s.Key)
		if !slices.Contains(configKeys, key) && !slices.Contains(otherKeys, key) {
			c.errorf(s, "max_strlen, max_map_keys, max_cat_bytes, print_maps_on_exit, missing_probes, stack_mode", "unrecognized config variable: %s", s.Key)
			continue
		}
		if why := c.set(key, settingOf(s.Value)); why != "" {
			c.errorf(s, "", "%s: %s", s.Key, why)
		}
	}
}

// configKey is a setting's name, of which the environment has a longer form.
func configKey(name string) string { return strings.TrimPrefix(strings.ToLower(name), "bpftrace_") }

var (
	configKeys = []string{"max_strlen", "strlen", "max_map_keys", "map_keys_max", "max_cat_bytes", "print_maps_on_exit", "missing_probes", "stack_mode", "license"}
	// What these are about is other here, or not at all.
	otherKeys = []string{"unstable_import", "unstable_import_statement", "unstable_macro", "unstable_map_decl", "unstable_tseries", "unstable_addr", "unstable_dw_ustack", "cache_user_symbols",
		"lazy_symbolication", "log_size", "max_bpf_progs", "max_probes", "max_type_res_iterations", "on_stack_limit", "perf_rb_pages", "str_trunc_trailer",
		"symbol_source", "use_blazesym", "show_debug_info", "max_ast_nodes", "cpp_demangle", "demangle_cpp_symbols"}
	// licenses are those that the kernel takes for the GPL (include/linux/license.h).
	licenses = []string{"GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"}
)

// set makes a setting what it shall be, and says what is wrong with that.
func (c *checker) set(key string, v setting) (why string) {
	const most = 1 << 22 // keys of a map
	switch key {
	case "max_strlen", "strlen":
		if !v.isNum || v.number == 0 || v.number > maxText {
			return "a number from 1 to " + strconv.Itoa(maxText) + " is wanted"
		}
		c.o.MaxStr = int(v.number)
		c.config.MaxStr = c.o.MaxStr
	case "max_map_keys", "map_keys_max":
		if !v.isNum || v.number == 0 || v.number > most {
			return "a number from 1 to " + strconv.Itoa(most) + " is wanted"
		}
		c.config.MaxMapKeys = int(v.number)
	case "max_cat_bytes":
		if !v.isNum || v.number > 1<<30 {
			return "a number of bytes is wanted"
		}
		c.config.MaxCat = int(v.number)
	case "print_maps_on_exit":
		c.config.PrintMapsOnExit = v.on
	case "missing_probes":
		if !slices.Contains([]string{"error", "warn", "ignore"}, v.text) {
			return "error, warn or ignore is wanted"
		}
		c.config.Missing = v.text
	case "stack_mode":
		mode, ok := stackModes[v.text]
		if !ok {
			return "bpftrace, perf, raw or build_id is wanted"
		}
		c.config.StackMode = mode
	case "license":
		if !slices.Contains(licenses, v.text) {
			return "Invalid value for license. Found: " + v.text + ". Valid values: " + strings.Join(licenses, ", ")
		}
	}
	return ""
}
