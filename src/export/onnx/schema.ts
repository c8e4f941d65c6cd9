/**
 * The part of the ONNX file format this toolkit writes, as a protobuf schema: models, graphs, nodes, tensors.
 *
 * An extract of `onnx/onnx.proto3` of the ONNX project (https://github.com/onnx/onnx, Copyright (c) ONNX Project
 * Contributors, SPDX-License-Identifier: Apache-2.0): field names, numbers and types are theirs, fields this
 * toolkit never sets are left out.
 * @module
 */
import protobuf from "protobufjs";

const schema = `
syntax = "proto3";
package onnx;

message ModelProto {
  int64 ir_version = 1;
  string producer_name = 2;
  string producer_version = 3;
  string doc_string = 6;
  GraphProto graph = 7;
  repeated OperatorSetIdProto opset_import = 8;
}

message OperatorSetIdProto {
  string domain = 1;
  int64 version = 2;
}

message GraphProto {
  repeated NodeProto node = 1;
  string name = 2;
  repeated TensorProto initializer = 5;
  repeated ValueInfoProto input = 11;
  repeated ValueInfoProto output = 12;
}

message NodeProto {
  repeated string input = 1;
  repeated string output = 2;
  string name = 3;
  string op_type = 4;
  repeated AttributeProto attribute = 5;
  string domain = 7;
}

message AttributeProto {
  string name = 1;
  float f = 2;
  int64 i = 3;
  repeated int64 ints = 8;
  AttributeType type = 20;

  enum AttributeType {
    UNDEFINED = 0;
    FLOAT = 1;
    INT = 2;
    INTS = 7;
  }
}

message TensorProto {
  repeated int64 dims = 1;
  int32 data_type = 2;
  string name = 8;
  bytes raw_data = 9;
}

message ValueInfoProto {
  string name = 1;
  TypeProto type = 2;
}

message TypeProto {
  Tensor tensor_type = 1;

  message Tensor {
    int32 elem_type = 1;
    TensorShapeProto shape = 2;
  }
}

message TensorShapeProto {
  repeated Dimension dim = 1;

  message Dimension {
    oneof value {
      int64 dim_value = 1;
      string dim_param = 2;
    }
  }
}
`;

const { root } = protobuf.parse(schema, { keepCase: true });

/** A whole file. */
export const ModelProto: protobuf.Type = root.lookupType("onnx.ModelProto");
/** Nodes, weights, inputs and outputs. */
export const GraphProto: protobuf.Type = root.lookupType("onnx.GraphProto");
/** A weight: dimensions, element type, name, little-endian bytes. */
export const TensorProto: protobuf.Type = root.lookupType("onnx.TensorProto");

/** Element types by the name used here, with the number of `TensorProto.DataType`. */
export const elementTypes = { float32: 1, uint8: 2, int8: 3, int32: 6, int64: 7 } as const;
/** A name in `elementTypes`. */
export type ElementType = keyof typeof elementTypes;
/** Bytes of one element. */
export const elementBytes: Readonly<Record<ElementType, number>> = {
  float32: 4,
  uint8: 1,
  int8: 1,
  int32: 4,
  int64: 8,
};
