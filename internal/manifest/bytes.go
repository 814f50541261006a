package manifest

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
)

// byteUnit is a unit of a size. Units are written as they are spelled, or in any other case.
type byteUnit struct {
	name string
	size int64
}

// byteUnits lists the units from the largest to the smallest.
func byteUnits() []byteUnit {
	return []byteUnit{
		{"TiB", 1 << 40},
		{"TB", 1e12},
		{"GiB", 1 << 30},
		{"GB", 1e9},
		{"MiB", 1 << 20},
		{"MB", 1e6},
		{"KiB", 1 << 10},
		{"KB", 1e3},
		{"B", 1},
	}
}

// maxSizeText bounds what ParseBytes reads: no size that fits an int64 needs more characters.
const maxSizeText = 40

// ParseBytes reads a size: a number, whole or decimal, and a unit (B, KB, MB, GB, TB, KiB, MiB, GiB, TiB, in any case).
// A number without a unit counts bytes. A fraction must come to whole bytes: 1.5KiB is one, 1.5B is not.
func ParseBytes(s string) (Bytes, error) {
	text := strings.TrimSpace(s)
	if len(text) > maxSizeText {
		return 0, fmt.Errorf("a size has at most %d characters", maxSizeText)
	}
	end := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if end < 0 {
		end = len(text)
	}
	number, unit := text[:end], strings.TrimSpace(text[end:])
	if number == "" || strings.HasPrefix(number, ".") || strings.HasSuffix(number, ".") {
		return 0, fmt.Errorf("%q is not a size: write a number and a unit, like 10GiB", s)
	}
	size := int64(1)
	if unit != "" {
		size = 0
		for _, u := range byteUnits() {
			if strings.EqualFold(unit, u.name) {
				size = u.size
			}
		}
		if size == 0 {
			return 0, fmt.Errorf("%q is not a unit of size: use B, KB, MB, GB, TB, KiB, MiB, GiB or TiB", unit)
		}
	}
	value, ok := new(big.Rat).SetString(number)
	if !ok {
		return 0, fmt.Errorf("%q is not a number", number)
	}
	value.Mul(value, new(big.Rat).SetInt64(size))
	if !value.IsInt() {
		return 0, fmt.Errorf("%s is not a whole number of bytes", text)
	}
	if !value.Num().IsInt64() {
		return 0, fmt.Errorf("%s is beyond the largest size, %s", text, Bytes(math.MaxInt64))
	}
	return Bytes(value.Num().Int64()), nil
}

// String writes the size exactly, in the largest unit that divides it: "10GiB", "1536KiB", "1MB", "1001B". ParseBytes
// reads it back.
func (b Bytes) String() string {
	for _, u := range byteUnits() {
		if n := int64(b); n != 0 && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return "0B"
}
