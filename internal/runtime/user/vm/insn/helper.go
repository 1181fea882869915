package insn

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf/asm"
)

// Helpers that the user runtime offers (the kernel's include/uapi/linux/bpf.h).
const (
	MapLookup          = 1
	MapUpdate          = 2
	MapDelete          = 3
	ProbeRead          = 4
	KtimeGetNs         = 5
	GetPrandomU32      = 7
	GetSmpProcessorID  = 8
	GetCurrentPidTgid  = 14
	GetCurrentUidGid   = 15
	GetCurrentComm     = 16
	GetNumaNodeID      = 42
	ProbeReadStr       = 45
	GetStack           = 67
	GetCurrentCgroupID = 80
	ProbeReadUser      = 112
	ProbeReadKernel    = 113
	ProbeReadUserStr   = 114
	ProbeReadKernelStr = 115
	GetNsPidTgid       = 120
	KtimeGetBootNs     = 125
	RingbufOutput      = 130
	RingbufReserve     = 131
	RingbufSubmit      = 132
	RingbufDiscard     = 133
	RingbufQuery       = 134
	CopyFromUser       = 148
	KtimeGetCoarseNs   = 160
	ForEachMapElem     = 164
	GetFuncIP          = 173
	GetAttachCookie    = 174
	Loop               = 181
	Strncmp            = 182
	MapLookupPerCPU    = 195
	KtimeGetTaiNs      = 208
)

// HelperName is the kernel's name of a helper, for messages.
func HelperName(id int64) string {
	if id < 0 || id > 1<<16 {
		return fmt.Sprint(id)
	}
	name := strings.TrimPrefix(asm.BuiltinFunc(id).String(), "Fn")
	if strings.Contains(name, "(") {
		return fmt.Sprint(id)
	}
	var s strings.Builder
	s.WriteString("bpf")
	for _, c := range name {
		if c >= 'A' && c <= 'Z' {
			s.WriteByte('_')
			c += 'a' - 'A'
		}
		s.WriteRune(c)
	}
	return s.String()
}
