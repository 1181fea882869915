package dwarf

import "fmt"

// Tag is what an entry describes: a DW_TAG constant (DWARF 5 §7.5.3).
type Tag uint16

// Attr is the name of an attribute: a DW_AT constant (DWARF 5 §7.5.4).
type Attr uint16

// Form is how an attribute's value is written: a DW_FORM constant (DWARF 5 §7.5.6).
type Form uint16

// Tags.
const (
	TagArrayType                Tag = 0x01
	TagClassType                Tag = 0x02
	TagEntryPoint               Tag = 0x03
	TagEnumerationType          Tag = 0x04
	TagFormalParameter          Tag = 0x05
	TagImportedDeclaration      Tag = 0x08
	TagLabel                    Tag = 0x0a
	TagLexicalBlock             Tag = 0x0b
	TagMember                   Tag = 0x0d
	TagPointerType              Tag = 0x0f
	TagReferenceType            Tag = 0x10
	TagCompileUnit              Tag = 0x11
	TagStringType               Tag = 0x12
	TagStructureType            Tag = 0x13
	TagSubroutineType           Tag = 0x15
	TagTypedef                  Tag = 0x16
	TagUnionType                Tag = 0x17
	TagUnspecifiedParameters    Tag = 0x18
	TagVariant                  Tag = 0x19
	TagInheritance              Tag = 0x1c
	TagInlinedSubroutine        Tag = 0x1d
	TagModule                   Tag = 0x1e
	TagPtrToMemberType          Tag = 0x1f
	TagSubrangeType             Tag = 0x21
	TagBaseType                 Tag = 0x24
	TagConstType                Tag = 0x26
	TagConstant                 Tag = 0x27
	TagEnumerator               Tag = 0x28
	TagSubprogram               Tag = 0x2e
	TagTemplateTypeParameter    Tag = 0x2f
	TagTemplateValueParameter   Tag = 0x30
	TagVariantPart              Tag = 0x33
	TagVariable                 Tag = 0x34
	TagVolatileType             Tag = 0x35
	TagDwarfProcedure           Tag = 0x36
	TagRestrictType             Tag = 0x37
	TagNamespace                Tag = 0x39
	TagImportedModule           Tag = 0x3a
	TagUnspecifiedType          Tag = 0x3b
	TagPartialUnit              Tag = 0x3c
	TagImportedUnit             Tag = 0x3d
	TagTypeUnit                 Tag = 0x41
	TagRvalueReferenceType      Tag = 0x42
	TagTemplateAlias            Tag = 0x43
	TagGenericSubrange          Tag = 0x45
	TagAtomicType               Tag = 0x47
	TagCallSite                 Tag = 0x48
	TagCallSiteParameter        Tag = 0x49
	TagSkeletonUnit             Tag = 0x4a
	TagGNUTemplateParameterPack Tag = 0x4107
	TagGNUFormalParameterPack   Tag = 0x4108
	TagGNUCallSite              Tag = 0x4109
	TagGNUCallSiteParameter     Tag = 0x410a
)

// Attributes.
const (
	AttrSibling             Attr = 0x01
	AttrLocation            Attr = 0x02
	AttrName                Attr = 0x03
	AttrOrdering            Attr = 0x09
	AttrByteSize            Attr = 0x0b
	AttrBitOffset           Attr = 0x0c
	AttrBitSize             Attr = 0x0d
	AttrStmtList            Attr = 0x10
	AttrLowPC               Attr = 0x11
	AttrHighPC              Attr = 0x12
	AttrLanguage            Attr = 0x13
	AttrDiscr               Attr = 0x15
	AttrDiscrValue          Attr = 0x16
	AttrImport              Attr = 0x18
	AttrCompDir             Attr = 0x1b
	AttrConstValue          Attr = 0x1c
	AttrContainingType      Attr = 0x1d
	AttrDefaultValue        Attr = 0x1e
	AttrInline              Attr = 0x20
	AttrLowerBound          Attr = 0x22
	AttrProducer            Attr = 0x25
	AttrPrototyped          Attr = 0x27
	AttrReturnAddr          Attr = 0x2a
	AttrStartScope          Attr = 0x2c
	AttrBitStride           Attr = 0x2e
	AttrUpperBound          Attr = 0x2f
	AttrAbstractOrigin      Attr = 0x31
	AttrAccessibility       Attr = 0x32
	AttrArtificial          Attr = 0x34
	AttrBaseTypes           Attr = 0x35
	AttrCallingConvention   Attr = 0x36
	AttrCount               Attr = 0x37
	AttrDataMemberLocation  Attr = 0x38
	AttrDeclColumn          Attr = 0x39
	AttrDeclFile            Attr = 0x3a
	AttrDeclLine            Attr = 0x3b
	AttrDeclaration         Attr = 0x3c
	AttrDiscrList           Attr = 0x3d
	AttrEncoding            Attr = 0x3e
	AttrExternal            Attr = 0x3f
	AttrFrameBase           Attr = 0x40
	AttrMacroInfo           Attr = 0x43
	AttrSpecification       Attr = 0x47
	AttrStaticLink          Attr = 0x48
	AttrType                Attr = 0x49
	AttrUseLocation         Attr = 0x4a
	AttrVariableParameter   Attr = 0x4b
	AttrVirtuality          Attr = 0x4c
	AttrVtableElemLocation  Attr = 0x4d
	AttrDataLocation        Attr = 0x50
	AttrByteStride          Attr = 0x51
	AttrEntryPC             Attr = 0x52
	AttrUseUTF8             Attr = 0x53
	AttrExtension           Attr = 0x54
	AttrRanges              Attr = 0x55
	AttrTrampoline          Attr = 0x56
	AttrCallColumn          Attr = 0x57
	AttrCallFile            Attr = 0x58
	AttrCallLine            Attr = 0x59
	AttrDescription         Attr = 0x5a
	AttrMutable             Attr = 0x61
	AttrExplicit            Attr = 0x63
	AttrObjectPointer       Attr = 0x64
	AttrEndianity           Attr = 0x65
	AttrPure                Attr = 0x67
	AttrSignature           Attr = 0x69
	AttrMainSubprogram      Attr = 0x6a
	AttrDataBitOffset       Attr = 0x6b
	AttrConstExpr           Attr = 0x6c
	AttrEnumClass           Attr = 0x6d
	AttrLinkageName         Attr = 0x6e
	AttrStrOffsetsBase      Attr = 0x72
	AttrAddrBase            Attr = 0x73
	AttrRnglistsBase        Attr = 0x74
	AttrDwoName             Attr = 0x76
	AttrReference           Attr = 0x77
	AttrRvalueReference     Attr = 0x78
	AttrMacros              Attr = 0x79
	AttrCallAllCalls        Attr = 0x7a
	AttrCallAllSourceCalls  Attr = 0x7b
	AttrCallAllTailCalls    Attr = 0x7c
	AttrCallReturnPC        Attr = 0x7d
	AttrCallValue           Attr = 0x7e
	AttrCallOrigin          Attr = 0x7f
	AttrCallParameter       Attr = 0x80
	AttrCallPC              Attr = 0x81
	AttrCallTailCall        Attr = 0x82
	AttrCallTarget          Attr = 0x83
	AttrCallTargetClobbered Attr = 0x84
	AttrNoreturn            Attr = 0x87
	AttrAlignment           Attr = 0x88
	AttrExportSymbols       Attr = 0x89
	AttrDeleted             Attr = 0x8a
	AttrDefaulted           Attr = 0x8b
	AttrLoclistsBase        Attr = 0x8c
	AttrMIPSLinkageName     Attr = 0x2007
	AttrGNUCallSiteValue    Attr = 0x2111
	AttrGNUAllTailCallSites Attr = 0x2116
	AttrGNUAllCallSites     Attr = 0x2117
	AttrGNUDwoName          Attr = 0x2130
	AttrGNUDwoId            Attr = 0x2131
	AttrGNURangesBase       Attr = 0x2132
	AttrGNUAddrBase         Attr = 0x2133
	AttrGNUPubnames         Attr = 0x2134
	AttrGNULocviews         Attr = 0x2137
	AttrGNUEntryView        Attr = 0x2138
)

// Forms.
const (
	FormAddr          Form = 0x01
	FormBlock2        Form = 0x03
	FormBlock4        Form = 0x04
	FormData2         Form = 0x05
	FormData4         Form = 0x06
	FormData8         Form = 0x07
	FormString        Form = 0x08
	FormBlock         Form = 0x09
	FormBlock1        Form = 0x0a
	FormData1         Form = 0x0b
	FormFlag          Form = 0x0c
	FormSdata         Form = 0x0d
	FormStrp          Form = 0x0e
	FormUdata         Form = 0x0f
	FormRefAddr       Form = 0x10
	FormRef1          Form = 0x11
	FormRef2          Form = 0x12
	FormRef4          Form = 0x13
	FormRef8          Form = 0x14
	FormRefUdata      Form = 0x15
	FormIndirect      Form = 0x16
	FormSecOffset     Form = 0x17
	FormExprloc       Form = 0x18
	FormFlagPresent   Form = 0x19
	FormStrx          Form = 0x1a
	FormAddrx         Form = 0x1b
	FormRefSup4       Form = 0x1c
	FormStrpSup       Form = 0x1d
	FormData16        Form = 0x1e
	FormLineStrp      Form = 0x1f
	FormRefSig8       Form = 0x20
	FormImplicitConst Form = 0x21
	FormLoclistx      Form = 0x22
	FormRnglistx      Form = 0x23
	FormRefSup8       Form = 0x24
	FormStrx1         Form = 0x25
	FormStrx2         Form = 0x26
	FormStrx3         Form = 0x27
	FormStrx4         Form = 0x28
	FormAddrx1        Form = 0x29
	FormAddrx2        Form = 0x2a
	FormAddrx3        Form = 0x2b
	FormAddrx4        Form = 0x2c
	FormGNUAddrIndex  Form = 0x1f01
	FormGNUStrIndex   Form = 0x1f02
	FormGNURefAlt     Form = 0x1f20
	FormGNUStrpAlt    Form = 0x1f21
)

var tagNames = map[Tag]string{
	TagArrayType:                "array_type",
	TagClassType:                "class_type",
	TagEntryPoint:               "entry_point",
	TagEnumerationType:          "enumeration_type",
	TagFormalParameter:          "formal_parameter",
	TagImportedDeclaration:      "imported_declaration",
	TagLabel:                    "label",
	TagLexicalBlock:             "lexical_block",
	TagMember:                   "member",
	TagPointerType:              "pointer_type",
	TagReferenceType:            "reference_type",
	TagCompileUnit:              "compile_unit",
	TagStringType:               "string_type",
	TagStructureType:            "structure_type",
	TagSubroutineType:           "subroutine_type",
	TagTypedef:                  "typedef",
	TagUnionType:                "union_type",
	TagUnspecifiedParameters:    "unspecified_parameters",
	TagVariant:                  "variant",
	TagInheritance:              "inheritance",
	TagInlinedSubroutine:        "inlined_subroutine",
	TagModule:                   "module",
	TagPtrToMemberType:          "ptr_to_member_type",
	TagSubrangeType:             "subrange_type",
	TagBaseType:                 "base_type",
	TagConstType:                "const_type",
	TagConstant:                 "constant",
	TagEnumerator:               "enumerator",
	TagSubprogram:               "subprogram",
	TagTemplateTypeParameter:    "template_type_parameter",
	TagTemplateValueParameter:   "template_value_parameter",
	TagVariantPart:              "variant_part",
	TagVariable:                 "variable",
	TagVolatileType:             "volatile_type",
	TagDwarfProcedure:           "dwarf_procedure",
	TagRestrictType:             "restrict_type",
	TagNamespace:                "namespace",
	TagImportedModule:           "imported_module",
	TagUnspecifiedType:          "unspecified_type",
	TagPartialUnit:              "partial_unit",
	TagImportedUnit:             "imported_unit",
	TagTypeUnit:                 "type_unit",
	TagRvalueReferenceType:      "rvalue_reference_type",
	TagTemplateAlias:            "template_alias",
	TagGenericSubrange:          "generic_subrange",
	TagAtomicType:               "atomic_type",
	TagCallSite:                 "call_site",
	TagCallSiteParameter:        "call_site_parameter",
	TagSkeletonUnit:             "skeleton_unit",
	TagGNUTemplateParameterPack: "GNU_template_parameter_pack",
	TagGNUFormalParameterPack:   "GNU_formal_parameter_pack",
	TagGNUCallSite:              "GNU_call_site",
	TagGNUCallSiteParameter:     "GNU_call_site_parameter",
}

// String is the constant's name in the standard.
func (x Tag) String() string {
	if s, ok := tagNames[x]; ok {
		return "DW_TAG_" + s
	}
	return fmt.Sprintf("DW_TAG_%#x", uint16(x))
}

var attrNames = map[Attr]string{
	AttrSibling:             "sibling",
	AttrLocation:            "location",
	AttrName:                "name",
	AttrOrdering:            "ordering",
	AttrByteSize:            "byte_size",
	AttrBitOffset:           "bit_offset",
	AttrBitSize:             "bit_size",
	AttrStmtList:            "stmt_list",
	AttrLowPC:               "low_pc",
	AttrHighPC:              "high_pc",
	AttrLanguage:            "language",
	AttrDiscr:               "discr",
	AttrDiscrValue:          "discr_value",
	AttrImport:              "import",
	AttrCompDir:             "comp_dir",
	AttrConstValue:          "const_value",
	AttrContainingType:      "containing_type",
	AttrDefaultValue:        "default_value",
	AttrInline:              "inline",
	AttrLowerBound:          "lower_bound",
	AttrProducer:            "producer",
	AttrPrototyped:          "prototyped",
	AttrReturnAddr:          "return_addr",
	AttrStartScope:          "start_scope",
	AttrBitStride:           "bit_stride",
	AttrUpperBound:          "upper_bound",
	AttrAbstractOrigin:      "abstract_origin",
	AttrAccessibility:       "accessibility",
	AttrArtificial:          "artificial",
	AttrBaseTypes:           "base_types",
	AttrCallingConvention:   "calling_convention",
	AttrCount:               "count",
	AttrDataMemberLocation:  "data_member_location",
	AttrDeclColumn:          "decl_column",
	AttrDeclFile:            "decl_file",
	AttrDeclLine:            "decl_line",
	AttrDeclaration:         "declaration",
	AttrDiscrList:           "discr_list",
	AttrEncoding:            "encoding",
	AttrExternal:            "external",
	AttrFrameBase:           "frame_base",
	AttrMacroInfo:           "macro_info",
	AttrSpecification:       "specification",
	AttrStaticLink:          "static_link",
	AttrType:                "type",
	AttrUseLocation:         "use_location",
	AttrVariableParameter:   "variable_parameter",
	AttrVirtuality:          "virtuality",
	AttrVtableElemLocation:  "vtable_elem_location",
	AttrDataLocation:        "data_location",
	AttrByteStride:          "byte_stride",
	AttrEntryPC:             "entry_pc",
	AttrUseUTF8:             "use_UTF8",
	AttrExtension:           "extension",
	AttrRanges:              "ranges",
	AttrTrampoline:          "trampoline",
	AttrCallColumn:          "call_column",
	AttrCallFile:            "call_file",
	AttrCallLine:            "call_line",
	AttrDescription:         "description",
	AttrMutable:             "mutable",
	AttrExplicit:            "explicit",
	AttrObjectPointer:       "object_pointer",
	AttrEndianity:           "endianity",
	AttrPure:                "pure",
	AttrSignature:           "signature",
	AttrMainSubprogram:      "main_subprogram",
	AttrDataBitOffset:       "data_bit_offset",
	AttrConstExpr:           "const_expr",
	AttrEnumClass:           "enum_class",
	AttrLinkageName:         "linkage_name",
	AttrStrOffsetsBase:      "str_offsets_base",
	AttrAddrBase:            "addr_base",
	AttrRnglistsBase:        "rnglists_base",
	AttrDwoName:             "dwo_name",
	AttrReference:           "reference",
	AttrRvalueReference:     "rvalue_reference",
	AttrMacros:              "macros",
	AttrCallAllCalls:        "call_all_calls",
	AttrCallAllSourceCalls:  "call_all_source_calls",
	AttrCallAllTailCalls:    "call_all_tail_calls",
	AttrCallReturnPC:        "call_return_pc",
	AttrCallValue:           "call_value",
	AttrCallOrigin:          "call_origin",
	AttrCallParameter:       "call_parameter",
	AttrCallPC:              "call_pc",
	AttrCallTailCall:        "call_tail_call",
	AttrCallTarget:          "call_target",
	AttrCallTargetClobbered: "call_target_clobbered",
	AttrNoreturn:            "noreturn",
	AttrAlignment:           "alignment",
	AttrExportSymbols:       "export_symbols",
	AttrDeleted:             "deleted",
	AttrDefaulted:           "defaulted",
	AttrLoclistsBase:        "loclists_base",
	AttrMIPSLinkageName:     "MIPS_linkage_name",
	AttrGNUCallSiteValue:    "GNU_call_site_value",
	AttrGNUAllTailCallSites: "GNU_all_tail_call_sites",
	AttrGNUAllCallSites:     "GNU_all_call_sites",
	AttrGNUDwoName:          "GNU_dwo_name",
	AttrGNUDwoId:            "GNU_dwo_id",
	AttrGNURangesBase:       "GNU_ranges_base",
	AttrGNUAddrBase:         "GNU_addr_base",
	AttrGNUPubnames:         "GNU_pubnames",
	AttrGNULocviews:         "GNU_locviews",
	AttrGNUEntryView:        "GNU_entry_view",
}

// String is the constant's name in the standard.
func (x Attr) String() string {
	if s, ok := attrNames[x]; ok {
		return "DW_AT_" + s
	}
	return fmt.Sprintf("DW_AT_%#x", uint16(x))
}

var formNames = map[Form]string{
	FormAddr:          "addr",
	FormBlock2:        "block2",
	FormBlock4:        "block4",
	FormData2:         "data2",
	FormData4:         "data4",
	FormData8:         "data8",
	FormString:        "string",
	FormBlock:         "block",
	FormBlock1:        "block1",
	FormData1:         "data1",
	FormFlag:          "flag",
	FormSdata:         "sdata",
	FormStrp:          "strp",
	FormUdata:         "udata",
	FormRefAddr:       "ref_addr",
	FormRef1:          "ref1",
	FormRef2:          "ref2",
	FormRef4:          "ref4",
	FormRef8:          "ref8",
	FormRefUdata:      "ref_udata",
	FormIndirect:      "indirect",
	FormSecOffset:     "sec_offset",
	FormExprloc:       "exprloc",
	FormFlagPresent:   "flag_present",
	FormStrx:          "strx",
	FormAddrx:         "addrx",
	FormRefSup4:       "ref_sup4",
	FormStrpSup:       "strp_sup",
	FormData16:        "data16",
	FormLineStrp:      "line_strp",
	FormRefSig8:       "ref_sig8",
	FormImplicitConst: "implicit_const",
	FormLoclistx:      "loclistx",
	FormRnglistx:      "rnglistx",
	FormRefSup8:       "ref_sup8",
	FormStrx1:         "strx1",
	FormStrx2:         "strx2",
	FormStrx3:         "strx3",
	FormStrx4:         "strx4",
	FormAddrx1:        "addrx1",
	FormAddrx2:        "addrx2",
	FormAddrx3:        "addrx3",
	FormAddrx4:        "addrx4",
	FormGNUAddrIndex:  "GNU_addr_index",
	FormGNUStrIndex:   "GNU_str_index",
	FormGNURefAlt:     "GNU_ref_alt",
	FormGNUStrpAlt:    "GNU_strp_alt",
}

// String is the constant's name in the standard.
func (x Form) String() string {
	if s, ok := formNames[x]; ok {
		return "DW_FORM_" + s
	}
	return fmt.Sprintf("DW_FORM_%#x", uint16(x))
}

// Unit types (DWARF 5 §7.5.1).
const (
	utCompile      = 0x01
	utType         = 0x02
	utPartial      = 0x03
	utSkeleton     = 0x04
	utSplitCompile = 0x05
	utSplitType    = 0x06
)

// Languages (DWARF 5 §7.12, and later registrations).
const (
	LangC99  = 0x0c
	LangC11  = 0x1d
	LangRust = 0x1c
	// LangMipsAssembler is what assemblers of all machines write.
	LangMipsAssembler = 0x8001
	LangAssembly      = 0x31
)

// Encodings of base types (DWARF 5 §7.8).
const (
	EncAddress      = 0x01
	EncBoolean      = 0x02
	EncFloat        = 0x04
	EncSigned       = 0x05
	EncSignedChar   = 0x06
	EncUnsigned     = 0x07
	EncUnsignedChar = 0x08
	EncUTF          = 0x10
)

// Calling conventions (DWARF 5 §7.15).
const (
	CallingNormal = 0x01
	CallingNoCall = 0x03
)

// Values of DW_AT_inline (DWARF 5 §7.20).
const (
	InlineNotInlined         = 0
	InlineInlined            = 1
	InlineDeclaredNotInlined = 2
	InlineDeclaredInlined    = 3
)
