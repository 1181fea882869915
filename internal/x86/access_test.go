package x86

func compareAccess(in *Inst, mn, text string) string { return "" }
